from __future__ import annotations

import json

import pytest

from fieldstation.core.errors import DeadlineError
from fieldstation.station.config import ForeignConfig
from fieldstation.station.state import StateInterface


def test_a_missing_state_is_the_default_one(home):
    state = StateInterface.load()
    assert state.system.last_boot_time is None
    assert state.pending_configs == []


def test_a_state_of_todays_stations_is_adopted(home):
    (home / "data").mkdir()
    (home / "data" / "state.json").write_text(
        '{"system": {"last_boot_time": "2026-01-02T03:04:05.000000", "last_5_min_load": 0.42}, "pending_configs": '
        '[{"general": {"config_revision": 3, "software_version": "1.0.0"}, "x": 1}]}'
    )
    state = StateInterface.load()
    assert state.system.last_5_min_load == 0.42
    assert state.pending_configs[0].general.config_revision == 3


def test_an_update_is_written_and_unknown_keys_survive_it(home):
    (home / "data").mkdir()
    (home / "data" / "state.json").write_text('{"ups": {"battery": 0.5}}')
    foreign = ForeignConfig.load_from_string('{"general": {"config_revision": 3, "software_version": "1.0.0"}}')
    with StateInterface.update() as state:
        state.pending_configs.append(foreign)
    assert StateInterface.load().pending_configs == [foreign]
    assert json.loads((home / "data" / "state.json").read_text())["ups"] == {"battery": 0.5}


def test_an_update_that_fails_changes_nothing(home):
    with StateInterface.update() as state:
        state.system.last_5_min_load = 1.0
    update = StateInterface.update()
    state = update.__enter__()
    state.system.last_5_min_load = 2.0
    assert not update.__exit__(RuntimeError, RuntimeError(), None)
    assert StateInterface.load().system.last_5_min_load == 1.0


def test_a_broken_state_is_set_aside_and_not_overwritten(home):
    (home / "data").mkdir()
    (home / "data" / "state.json").write_text('{"system": {"last_5_m')
    assert StateInterface.load().system.last_5_min_load is None
    (aside,) = (home / "data").glob("state.broken-*.json")
    assert aside.read_text() == '{"system": {"last_5_m'


def test_who_holds_the_state_keeps_others_out(home, monkeypatch):
    monkeypatch.setattr("fieldstation.station.state.LOCK_TIMEOUT_S", 0.05)
    with StateInterface.update(), pytest.raises(DeadlineError), StateInterface.update():
        pass
