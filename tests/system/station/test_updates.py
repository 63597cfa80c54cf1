"""Versions change on a running station: signed, tried, kept or rolled back, also when it is killed at any step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import fieldstation
from fieldstation.cli.main import cli
from fieldstation.station.supervisor import birth_of
from fieldstation.testing import wait_for
from fieldstation.testing.station import StationProcess

pytestmark = pytest.mark.timeout(150)

PROCEDURE = """
import time
from fieldstation.station import DataMessageBody, MessagingAgent
def run(config, logger):
    agent = MessagingAgent()
    while True:
        agent.add_message(DataMessageBody(data={"version": "VERSION"}))
        time.sleep(0.2)
"""
TEST = """
import pytest
@pytest.mark.version_change
def test_it_fits():
    assert OUTCOME
"""
# Ends the whole station, as a power cut would, before the step named in KILL_BEFORE; once.
KILLER = """
import importlib.util, os, signal, sys
STEPS = {
    "fieldstation.station.updater": ["Updater.download_source_code", "Updater.install_dependencies",
                                     "Updater._share_data", "Updater.run_pytests"],
    "fieldstation.station.changes": ["Changes._prepare", "Changes._begin_trial", "Changes._settle", "point_to",
                                     "Changes._end_trial"],
    "fieldstation.station.main": ["os.execv"],
}
wanted, marker = os.environ.get("KILL_BEFORE", ""), os.environ.get("KILL_MARKER", "")
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name not in STEPS or not any(wanted == step for step in STEPS[name]):
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        inner = spec.loader.exec_module
        def execute(module):
            inner(module)
            *owners, last = wanted.split(".")
            holder = module
            for owner in owners:
                holder = getattr(holder, owner)
            real = getattr(holder, last)
            def dying(*args, **kwargs):
                if not os.path.exists(marker):
                    open(marker, "w").close()
                    os.killpg(os.getpgrp(), signal.SIGKILL)
                return real(*args, **kwargs)
            setattr(holder, last, dying)
        spec.loader.exec_module = execute
        return spec
if wanted:
    sys.meta_path.insert(0, Finder())
"""


def write_project(folder: Path, version: str, *, outcome: bool = True, procedure: str = PROCEDURE) -> Path:
    (folder / "tests").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "sut"\nversion = "{version}"\n'
        '[tool.fieldstation.station.procedures]\nreading = "reading:run"\n'
        '[tool.pytest.ini_options]\nmarkers = ["version_change: x"]\n'
    )
    (folder / "reading.py").write_text(procedure.replace("VERSION", version))
    (folder / "tests" / "test_it.py").write_text(TEST.replace("OUTCOME", str(outcome)))
    (folder / "requirements.txt").write_text("")
    return folder


class Site:
    """A release repository on a stick, and a station of version 1.0.0 that trusts it."""

    def __init__(self, folder: Path, config: dict) -> None:
        self.folder = folder
        self.repository = folder / "stick" / "lab" / "sut"
        self.root = folder / "root"
        self.config = config | {
            "updater": {"repository": "lab/sut", "provider": "folder", "provider_host": str(folder / "stick")}
        }
        self.release(write_project(folder / "first", "1.0.0"))
        project = write_project(self.root / "1.0.0", "1.0.0")
        (project / "config" / "trust").mkdir(parents=True)
        shutil.copy(self.repository / "metadata" / "1.root.json", project / "config" / "trust" / "root.json")
        self.station = StationProcess(project, self.config)
        write_project(folder / "again", "1.0.0")
        for name in ("pyproject.toml", "reading.py"):
            shutil.copy(folder / "again" / name, project / name)
        # The environments that uv makes are real and empty; what they run is found here.
        packages = [p for p in sys.path if p.endswith("site-packages")]
        source = str(Path(fieldstation.__file__).parent.parent)
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(KILLER)
        self.station.environment |= {
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), source, *packages]),
            "KILL_MARKER": str(folder / "killed"), "UV_OFFLINE": "1",
        }  # fmt: skip

    def release(self, project: Path) -> None:
        result = CliRunner().invoke(
            cli,
            ["station", "release", str(project), "--to", str(self.repository), "--keys", str(self.folder / "keys")],
            env={"FIELDSTATION_RELEASE_PASSPHRASE": "only a test"},
        )
        assert result.exit_code == 0, result.output

    def config_of(self, version: str, revision: int) -> dict:
        config = json.loads(json.dumps(self.config))
        config["general"] |= {"software_version": version, "config_revision": revision}
        return config

    @property
    def pointer(self) -> Path:
        return self.root / "sut-cli.sh"

    def running_version(self) -> str | None:
        try:
            told = json.loads((self.root / "1.0.0" / "data" / "run" / "health.json").read_text())
        except OSError:
            return None
        return str(self.status(told["url"]).get("version"))

    @staticmethod
    def status(url: str) -> dict:
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(url + "/health", timeout=5) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except OSError:
            return {}

    def end(self) -> None:
        lock = self.root / "run.lock"
        if lock.exists() and (pid := lock.read_text()) and birth_of(int(pid)):
            os.killpg(int(pid), signal.SIGKILL)
        if self.station._server is not None:
            self.station.server.send(signal.SIGKILL)
            self.station.server.process.wait()


@pytest.fixture
def site(tmp_path, config_for, line, counter):
    made = Site(tmp_path, config_for(line.port, health={"settle_seconds": 0.5, "version_window_seconds": 20}))
    yield made
    made.end()


def versions(counter):
    return [m["values"]["version"] for m in counter.messages if "version" in m.get("values", {})]


def push(site, counter, version, revision):
    counter.publish("v1/devices/me/attributes", {"configuration": site.config_of(version, revision)})


def test_a_signed_version_is_installed_tested_switched_to_and_kept(site, counter):
    site.release(write_project(site.folder / "next", "1.1.0"))
    site.station.start()
    wait_for(lambda: site.station.snapshot()["ok"], 20)
    pid = site.station.server.pid
    push(site, counter, "1.1.0", 2)
    wait_for(lambda: (2, "accepted") in counter.answers(), 60)
    assert counter.answers() == [(1, "startup"), (2, "received"), (2, "startup"), (2, "accepted")]
    assert site.running_version() == "1.1.0"
    assert birth_of(pid), "the same process goes on as the new version"
    wait_for(lambda: "1.1.0" in versions(counter), 20)
    assert (site.root / "1.1.0" / "data").resolve() == site.root / "1.0.0" / "data"
    assert "1.1.0" in site.pointer.read_text()
    assert "on trial" not in site.pointer.read_text()
    # By hand back to the version before.
    back = site.station.command("rollback")
    assert "1.0.0" in back.stdout, back.stderr
    wait_for(lambda: site.running_version() == "1.0.0", 30)


def test_fault_queue_left_behind_unsent_rows_and_state_go_with_the_new_version(site, line, counter):
    site.release(write_project(site.folder / "next", "1.1.0"))
    site.station.start()
    wait_for(lambda: site.station.snapshot()["ok"], 20)
    line.refuse()
    wait_for(lambda: site.station.snapshot()["queues"]["backend"]["depth"] > 5, 20)
    owed = len(versions(counter))
    result = site.station.command("update", "1.1.0")
    assert result.returncode == 0, result.stderr
    wait_for(lambda: site.running_version() == "1.1.0", 60)
    line.refuse(False)
    wait_for(lambda: len(versions(counter)) > owed + 5, 40)
    assert "1.0.0" in versions(counter)[owed:], "what the old version stored is sent by the new one"


def test_fault_main_loop_blocked_nothing_stands_still_while_a_version_is_rejected(site, counter):
    site.release(write_project(site.folder / "next", "1.1.0", outcome=False))
    site.station.start()
    wait_for(lambda: site.station.snapshot()["ok"], 20)
    deaths = site.station.process("reading")["deaths"]
    push(site, counter, "1.1.0", 2)
    wait_for(lambda: (2, "rejected") in counter.answers(), 60)
    assert "pytest" in counter.reasons()[-1]
    assert site.running_version() == "1.0.0"
    # Fault "main loop blocked": nothing else stood still meanwhile.
    assert site.station.process("reading")["deaths"] == deaths
    # Fault "tried set in memory": the same config again is neither tried nor answered again.
    push(site, counter, "1.1.0", 2)
    time.sleep(1)
    assert counter.answers().count((2, "rejected")) == 1


def test_a_version_whose_procedure_crashes_is_rolled_back_by_itself(site, counter):
    site.release(write_project(site.folder / "next", "1.1.0", procedure="def run(config, logger):\n    1 / 0\n"))
    site.station.start()
    wait_for(lambda: site.station.snapshot()["ok"], 20)
    push(site, counter, "1.1.0", 2)
    wait_for(lambda: (2, "rejected") in counter.answers(), 60)
    assert "died" in counter.reasons()[-1]
    wait_for(lambda: site.running_version() == "1.0.0", 30)


def test_a_version_that_does_not_even_start_gives_way_to_the_one_before(site, counter):
    broken = write_project(site.folder / "next", "1.1.0")
    text = (broken / "pyproject.toml").read_text()
    (broken / "pyproject.toml").write_text(
        text.replace("[tool.fieldstation.station.procedures]",
                     '[tool.fieldstation.station]\nconfig = "nowhere:Config"\n[tool.fieldstation.station.procedures]')
    )  # fmt: skip
    site.release(broken)
    site.station.start()
    wait_for(lambda: site.station.snapshot()["ok"], 20)
    push(site, counter, "1.1.0", 2)
    assert site.station.server.wait(60) != 0
    # What cron does each minute:
    environment = {**os.environ, **site.station.environment}
    for _ in range(5):
        subprocess.run([str(site.pointer), "start"], env=environment, check=False, capture_output=True)
        if site.running_version():
            break
    assert site.running_version() == "1.0.0"
    wait_for(lambda: (2, "rejected") in counter.answers(), 30)
    assert "did not start" in counter.reasons()[-1]


def test_a_release_that_somebody_else_signed_is_refused_on_the_wire(site, counter, tmp_path):
    shutil.rmtree(site.repository)
    other = Site.__new__(Site)
    other.folder, other.repository = tmp_path / "evil", site.repository
    other.release(write_project(tmp_path / "evil" / "next", "1.1.0"))
    site.station.start()
    wait_for(lambda: site.station.snapshot()["ok"], 20)
    push(site, counter, "1.1.0", 2)
    wait_for(lambda: (2, "rejected") in counter.answers(), 60)
    assert "release was refused" in counter.reasons()[-1]
    assert not (site.root / "1.1.0").exists()


SOON = ["Updater.install_dependencies", "Changes._settle", "os.execv"]
LONG = [
    "Changes._prepare", "Updater.download_source_code", "Updater._share_data", "Updater.run_pytests",
    "Changes._begin_trial", "point_to", "Changes._end_trial",
]  # fmt: skip


@pytest.mark.parametrize("step", [*SOON, *(pytest.param(step, marks=pytest.mark.soak) for step in LONG)])
def test_killed_before_any_step_a_good_version_runs_and_the_config_is_answered_once(site, counter, step):
    site.release(write_project(site.folder / "next", "1.1.0"))
    site.station.environment["KILL_BEFORE"] = step
    site.station.start()
    wait_for(lambda: site.station.snapshot()["ok"], 20)
    push(site, counter, "1.1.0", 2)
    wait_for((site.folder / "killed").exists, 60)
    site.station.server.wait(20)
    environment = {**os.environ, **site.station.environment}
    # Started again as cron or systemd would: by the pointer once there is one, else by hand.
    command = (
        [str(site.pointer), "start"]
        if site.pointer.exists()
        else [sys.executable, "-m", "fieldstation", "station", "start"]
    )
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wait_for(lambda: [s for r, s in counter.answers() if r == 2 and s in ("accepted", "rejected")], 90)
    (verdict,) = [s for r, s in counter.answers() if r == 2 and s in ("accepted", "rejected")]
    wait_for(lambda: site.running_version() == ("1.1.0" if verdict == "accepted" else "1.0.0"), 30)
    assert counter.answers().count((2, "received")) == 1
