"""Place, environment files, health text, system checks, log tail, scaffold."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import fieldstation.station
from fieldstation.station.config import Config
from fieldstation.station.health import metrics
from fieldstation.station.lifecycle import LifecycleManager
from fieldstation.station.logtail import entries
from fieldstation.station.place import place_of, read_dotenv
from fieldstation.station.procedures.system_checks import complaints, look
from fieldstation.station.scaffold import NotEmptyError, new_project
from fieldstation.station.systemd import Systemd


def test_config_env_wins_over_the_env_above(tmp_path):
    project = tmp_path / "1.0.0"
    (project / "config").mkdir(parents=True)
    (tmp_path / ".env").write_text("A=above\nB=above\n")
    (project / "config" / ".env").write_text("B=config\n")
    assert read_dotenv(project) == {"A": "above", "B": "config"}


def test_all_versions_of_a_deployed_station_share_one_lock(tmp_path):
    for version in ("1.0.0", "2.0.0"):
        (tmp_path / version).mkdir()
    assert place_of(tmp_path / "1.0.0", {}).lock_file == place_of(tmp_path / "2.0.0", {}).lock_file
    assert place_of(tmp_path, {}).lock_file == tmp_path / "run.lock"


def test_a_broken_pyproject_is_no_reason_not_to_look(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[[[")
    assert place_of(tmp_path, {}).version == "0.0.0"


def test_metrics_are_prometheus_text():
    text = metrics({
        "ok": True, "revision": 3, "processes": [{"name": 'a"b', "running": True, "deaths": 2}],
        "queues": {"backend": {"depth": 5, "oldest_age_s": None, "connected": False, "delivered": 9}},
    })  # fmt: skip
    assert 'fieldstation_station_queue_depth{uplink="backend"} 5' in text
    assert 'process_deaths_total{name="a\\"b"} 2' in text
    assert all(re.fullmatch(r"# (HELP|TYPE) .+|[a-z_]+(\{.+\})? [\d.e+-]+", line) for line in text.splitlines())


def test_fault_system_load_is_in_percent_of_all_cores(monkeypatch, tmp_path):
    monkeypatch.setattr("os.getloadavg", lambda: (2.0, 4.0, 8.0))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    found = look(tmp_path)
    assert (found["last_1_min_load"], found["last_5_min_load"], found["last_15_min_load"]) == (50.0, 100.0, 200.0)
    assert 0 <= found["memory_usage_percent"] <= 100
    assert 0 <= found["disk_usage_percent"] <= 100


def test_what_is_too_high_is_complained_about():
    assert complaints({"last_5_min_load": 10.0, "temperature_celsius": 91.0}) == ["the computer has 91 degrees Celsius"]


def test_the_last_entries_come_with_their_details(tmp_path):
    (tmp_path / "2026-01-01.log").write_text("2026-01-01 00:00:00.000 UTC+0 - a - INFO - one\n")
    (tmp_path / "2026-01-02.log").write_text(
        "2026-01-02 00:00:00.000 UTC+0 - a - ERROR - two\n--- details ---\nx\n---\n"
        "2026-01-02 00:00:01.000 UTC+0 - a - INFO - three\n"
    )
    assert [e.splitlines()[0][-3:] for e in entries(tmp_path, 3)] == ["one", "two", "ree"]
    (only,) = entries(tmp_path, 5, "WARNING")
    assert only.endswith("x\n---")


def test_a_new_station_has_a_config_that_its_own_class_takes(tmp_path):
    assert new_project(tmp_path / "My Roof") == "my-roof"
    project = tomllib.loads((tmp_path / "My Roof" / "pyproject.toml").read_text())
    data = json.loads((tmp_path / "My Roof" / "config" / "config.json").read_text())
    assert data["general"]["software_version"] == project["project"]["version"]
    del data["thermometer"]
    Config.model_validate(data)


def test_a_new_station_never_overwrites_anything(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(NotEmptyError):
        new_project(tmp_path)


def procedure(config, logger): ...


def backend(config, logger, teardown_indicator): ...


@pytest.mark.parametrize(
    ("function", "variant"), [(procedure, "backend"), (backend, "procedure"), (procedure, "thread")]
)
def test_an_entrypoint_of_the_wrong_signature_is_refused(today, home, function, variant):
    config = Config.load_from_string(json.dumps(today))
    with pytest.raises(ValueError, match="procedure"):
        LifecycleManager(config, function, "x", variant)


def test_a_manager_used_wrongly_says_so(today, home):
    manager = LifecycleManager(Config.load_from_string(json.dumps(today)), procedure, "x", "procedure")
    assert not manager.procedure_is_running()
    with pytest.raises(RuntimeError):
        manager.check_procedure_status()


def test_an_entrypoint_that_no_other_process_could_find_is_refused(today, home):
    with pytest.raises(ValueError, match="top of a module"):
        LifecycleManager(Config.load_from_string(json.dumps(today)), lambda config, logger: None, "x", "procedure")


def test_a_backend_gets_its_drain_time_and_two_minutes(today, home):
    manager = LifecycleManager(Config.load_from_string(json.dumps(today)), backend, "x", "backend")
    assert manager.deadline_s() == 300 + 120
    assert LifecycleManager(Config.load_from_string(json.dumps(today)), procedure, "x", "procedure").deadline_s() == 30


def test_without_systemd_nothing_is_said(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Systemd().say("READY=1")


def test_fault_alarms_no_signal_alarm_is_used_anywhere():
    folder = Path(fieldstation.station.__file__).parent
    assert not [path for path in folder.rglob("*.py") if "SIGALRM" in path.read_text() or "alarm(" in path.read_text()]


def test_fault_fork_hazards_no_process_is_forked():
    folder = Path(fieldstation.station.__file__).parent
    text = "".join(path.read_text() for path in folder.rglob("*.py"))
    assert "os.fork" not in text
    assert "import multiprocessing" not in text
    assert "preexec_fn" not in text


def test_fault_ci_needs_the_network_no_test_here_reaches_beyond_this_machine():
    # tests/conftest.py refuses every other address; here: no test ends processes by name, and no command line does.
    tests = Path(__file__).parents[2]
    folders = [tests / kind / "station" for kind in ("unit", "wire", "system")]
    text = "".join(p.read_text() for folder in folders for p in folder.glob("*.py") if p != Path(__file__))
    assert "pkill" not in text
    assert "killall" not in text
