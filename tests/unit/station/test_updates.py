"""Deciding on configs, trials, answers, the pointer."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from fieldstation.station.config import Config, ForeignConfig, UpdaterConfig, as_data
from fieldstation.station.errors import UpdateError
from fieldstation.station.place import current_place
from fieldstation.station.secrets import masked
from fieldstation.station.updater import Updater
from fieldstation.station.updates import sources
from fieldstation.station.updates.answers import Answers, digest
from fieldstation.station.updates.decide import decide
from fieldstation.station.updates.environment import requirements_of
from fieldstation.station.updates.pointer import point_to, somebody_else_in_force, starts_counted, target_of
from fieldstation.station.updates.trial import Evidence, Trial, TrialFile, verdict
from fieldstation.station.version import Version


@pytest.fixture
def current(today):
    return Config.load_from_string(json.dumps(today))


def foreign(current, **general):
    data = as_data(current)
    data["general"] |= general
    return ForeignConfig.model_validate(data)


def test_a_newer_config_of_the_same_version_is_tried(current):
    assert decide(foreign(current, config_revision=2), current, "1.2.3", None).action == "config"


def test_a_config_of_another_version_higher_or_lower_is_a_change_of_version(current):
    for version in ("1.3.0", "0.9.0"):
        wanted = foreign(current, config_revision=2, software_version=version)
        assert decide(wanted, current, "1.2.3", None).action == "version"


def test_without_an_updater_section_the_version_never_changes(current, today):
    today["updater"] = None
    fixed = Config.load_from_string(json.dumps(today))
    wanted = foreign(fixed, config_revision=2, software_version="1.3.0")
    assert decide(wanted, fixed, "1.2.3", None).action == "reject"


@pytest.mark.parametrize("revision", [1, 0, -1])
def test_fault_silent_no_ops_an_old_revision_is_rejected_with_a_reason(current, revision):
    old = foreign(current, config_revision=revision)
    old.general.system_identifier = "other"
    decision = decide(old, current, "1.2.3", None)
    assert decision.action == "reject"
    assert "not newer" in decision.reason


def test_the_config_in_force_that_comes_back_masked_is_accepted(current):
    back = ForeignConfig.model_validate(masked(as_data(current)))
    assert decide(back, current, "1.2.3", None).action == "in_force"


def test_a_masked_secret_that_comes_back_keeps_the_stored_one(current):
    data = masked(as_data(current))
    data["general"]["config_revision"] = 2
    decision = decide(ForeignConfig.model_validate(data), current, "1.2.3", None)
    assert decision.foreign.model_dump()["backend"]["mqtt_connection"]["password"] == "hunter2!"


@pytest.mark.parametrize("answered", ["accepted", "rejected"])
def test_fault_tried_set_in_memory_an_answered_config_is_not_tried_again(current, answered):
    assert decide(foreign(current, config_revision=2), current, "1.2.3", answered).action == "ignore"


def test_a_config_that_was_only_received_is_tried_after_a_power_cut(current):
    assert decide(foreign(current, config_revision=2), current, "1.2.3", "received").action == "config"


@pytest.mark.parametrize(("key", "value"), [("repository", "evil/code"), ("provider", "gitlab"),
                                            ("provider_host", "evil.example"), ("access_token", "abc")])  # fmt: skip
def test_fault_trust_a_pushed_config_cannot_change_where_code_comes_from(current, key, value):
    data = as_data(current)
    data["general"]["config_revision"] = 2
    data["updater"][key] = value
    decision = decide(ForeignConfig.model_validate(data), current, "1.2.3", None)
    assert decision.action == "reject"
    assert key in decision.reason


def test_what_could_not_be_read_is_rejected_with_its_reason(current):
    odd = ForeignConfig.model_validate(
        {"general": {"config_revision": 9, "software_version": "0.0.0"}, "unreadable": "it is no JSON"}
    )
    assert decide(odd, current, "1.2.3", None).reason == "it is no JSON"


# Trials


def trial(**changes):
    fields = {
        "kind": "config", "digest": "d", "revision": 2, "from_version": "1.2.3", "to_version": "1.2.3",
        "from_dir": "/a", "to_dir": "/a", "previous_config": {}, "needs_broker": True,
    }  # fmt: skip
    return Trial(**fields | changes)


def evidence(**changes):
    fields = {"running_s": 10.0, "calm_s": 10.0, "deaths": 0, "all_running": True, "online": True}
    return Evidence(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "keep"),
    [
        ({}, True),
        ({"online": False}, None),
        ({"online": False, "running_s": 61.0}, False),
        ({"calm_s": 1.0}, None),
        ({"calm_s": 1.0, "running_s": 61.0}, False),
        ({"deaths": 3}, False),
        ({"deaths": 1}, True),
        ({"all_running": False}, None),
    ],
)
def test_a_trial_ends_when_broker_and_procedures_speak_for_it(changes, keep):
    assert verdict(trial(), evidence(**changes), 60.0, 5.0)[0] is keep


def test_a_station_that_was_offline_need_not_reach_its_broker():
    assert verdict(trial(needs_broker=False), evidence(online=False), 60.0, 5.0)[0] is True


def test_a_trial_survives_on_disk_and_only_its_owner_reads_it(tmp_path):
    file = TrialFile(tmp_path)
    assert file.load() is None
    file.save(trial(previous_config={"password": "x"}))
    assert file.load() == trial(previous_config={"password": "x"})
    assert (tmp_path / "trial.json").stat().st_mode & 0o077 == 0
    file.clear()
    assert file.load() is None


def test_answers_are_remembered_on_disk_and_told_once(tmp_path):
    answers = Answers(tmp_path)
    first = answers.remember("f", 3, "received", None, "m1")
    answers.told("f")
    assert list(answers.untold()) == []
    second = answers.remember("f", 3, "rejected", "no", "m2")
    assert first != second
    again = Answers(tmp_path)
    assert again.status_of("f") == "rejected"
    assert list(again.untold()) == [("f", second, "m2")]
    assert again.last()["reason"] == "no"


def test_a_config_has_the_same_fingerprint_whatever_the_order_of_its_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


# The pointer


@pytest.fixture
def place(home):
    for version in ("1.2.3", "1.3.0"):
        python = home.parent / version / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        # Stands for the interpreter: tells which version was started, and how.
        python.write_text(f'#!/bin/bash\necho "{version} $FIELDSTATION_STATION_DIR $*"\n')
        python.chmod(0o755)
    return current_place()


def start(place, *arguments):
    result = subprocess.run([str(place.pointer), *arguments], capture_output=True, text=True, check=True)
    return result.stdout.split()[0], result.stdout.split()[2:]


def test_the_pointer_starts_the_version_it_was_pointed_to(place):
    point_to(place, Version("1.2.3"))
    assert place.pointer == place.root_dir / "ivy-cli.sh"
    assert start(place, "start") == ("1.2.3", ["-m", "fieldstation", "station", "start"])
    point_to(place, Version("1.3.0"))
    assert start(place) == ("1.3.0", ["-m", "fieldstation", "station", "status"])


def test_a_version_on_trial_that_does_not_stay_up_gives_way_to_the_one_before(place):
    point_to(place, Version("1.3.0"), fallback=place.project_dir)
    assert [start(place, "start")[0] for _ in range(4)] == ["1.3.0", "1.3.0", "1.3.0", "1.2.3"]
    assert starts_counted(place) == 4


def test_looking_at_a_station_on_trial_does_not_count_as_a_start(place):
    point_to(place, Version("1.3.0"), fallback=place.project_dir)
    for _ in range(5):
        assert start(place, "status")[0] == "1.3.0"
    assert starts_counted(place) == 0


def test_a_version_on_trial_without_environment_gives_way_at_once(place):
    point_to(place, Version("1.3.0"), fallback=place.project_dir)
    (place.root_dir / "1.3.0" / ".venv" / "bin" / "python").unlink()
    assert start(place, "run")[0] == "1.2.3"


def test_the_old_folder_knows_that_another_version_is_in_force(place, monkeypatch):
    assert not somebody_else_in_force(place)
    point_to(place, Version("1.3.0"))
    assert somebody_else_in_force(place)
    monkeypatch.setenv("FIELDSTATION_STATION_DIR", str(place.root_dir / "1.3.0"))
    assert not somebody_else_in_force(current_place())
    assert target_of(place)["directory"] == str(place.root_dir / "1.3.0")


def test_fault_non_atomic_switches_the_pointer_is_replaced_in_one_step(place, monkeypatch):
    point_to(place, Version("1.2.3"))
    before = place.pointer.read_text()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("the disk is gone")))
    with pytest.raises(OSError, match="gone"):
        point_to(place, Version("1.3.0"))
    assert place.pointer.read_text() == before
    assert [p.name for p in place.root_dir.glob("*.new")] == []


# Where releases come from


def updater(**changes):
    fields = {"repository": "tum-esm/ivy", "provider": "github", "provider_host": "github.com"}
    return UpdaterConfig(**fields | changes)


def test_a_github_tag_is_asked_for_as_documented():
    request = sources.unsigned_archive(updater(access_token="abc"), Version("1.3.0"), "ivy")
    assert request.url == "https://api.github.com/repos/tum-esm/ivy/tarball/v1.3.0"
    assert dict(request.headers) == {
        "Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28", "Authorization": "Bearer abc",
    }  # fmt: skip


def test_a_gitlab_token_is_a_header_and_never_in_the_address():
    request = sources.unsigned_archive(
        updater(provider="gitlab", provider_host="gitlab.lab", access_token="abc"), Version("1.3.0"), "ivy"
    )
    assert request.url == "https://gitlab.lab/tum-esm/ivy/-/archive/v1.3.0/ivy-v1.3.0.tar.gz"
    assert dict(request.headers) == {"PRIVATE-TOKEN": "abc"}


def test_a_mirror_and_a_folder_hold_metadata_and_targets_side_by_side():
    mirror = updater(provider="http", provider_host="https://mirror.lab/x")
    assert sources.metadata_base(mirror) == "https://mirror.lab/x/tum-esm/ivy/metadata/"
    folder = updater(provider="folder", provider_host="/media/usb")
    assert sources.target_base(folder, Version("1.3.0")) == "file:///media/usb/tum-esm/ivy/targets/"


def test_a_pdm_lock_is_followed_exactly_with_its_hashes():
    lock = {
        "package": [
            {"name": "a", "version": "1.0", "files": [{"file": "a.whl", "hash": "sha256:11"}], "groups": ["default"]},
            {"name": "b", "version": "2.0", "marker": 'python_version >= "3.11"', "files": [{"hash": "sha256:22"}]},
        ]
    }
    assert requirements_of(lock) == (
        'a==1.0 \\\n    --hash=sha256:11\nb==2.0 ; python_version >= "3.11" \\\n    --hash=sha256:22\n'
    )


@pytest.mark.parametrize("more", [{"files": []}, {"git": "x"}])
def test_a_pdm_lock_without_hashes_is_refused(more):
    with pytest.raises(UpdateError, match="hash"):
        requirements_of({"package": [{"name": "a", "version": "1"} | more]})


def test_the_pointer_survives_a_root_with_spaces(home, monkeypatch, tmp_path):
    root = tmp_path / "my stations"
    monkeypatch.setenv("IVY_ROOT_DIR", str(root))
    folder = root / "2.0.0" / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text("#!/bin/bash\necho started $0\n")
    (folder / "python").chmod(0o755)
    point_to(current_place(), Version("2.0.0"))
    result = subprocess.run([str(root / "ivy-cli.sh"), "info"], capture_output=True, text=True, check=True)
    assert "my stations" in result.stdout
    assert Path(str(root)).is_dir()


def test_environments_that_are_not_in_use_are_removed_and_the_one_to_roll_back_to_stays(current, home, monkeypatch):
    monkeypatch.setenv("IVY_ROOT_DIR", str(home.parent))
    for version in ("0.9.0", "1.0.0", "1.2.3", "dev"):
        (home.parent / version / ".venv" / "bin").mkdir(parents=True)
        (home.parent / version / "source.py").write_text("")
    data = current_place().data_dir
    data.mkdir(exist_ok=True)
    (data / "previous-version").write_text(f"{home.parent / '1.0.0'}\n")
    TrialFile(data).save(trial())
    Updater(current).remove_old_venvs()
    assert (home.parent / "0.9.0" / ".venv").exists(), "during a trial all stay"
    TrialFile(data).clear()
    Updater(current).remove_old_venvs()
    left = {path.parent.name for path in home.parent.glob("*/.venv")}
    assert left == {"1.0.0", "1.2.3", "dev"}
    assert (home.parent / "0.9.0" / "source.py").exists()
