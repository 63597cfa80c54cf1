"""What a worker keeps on disk: leases outlive it, and clocks that are set change none of them."""

from __future__ import annotations

import time

import pytest

from fieldstation.fleet import worker_store
from fieldstation.fleet.holding import Held
from fieldstation.fleet.worker_store import WorkerStore

LEFT_S = 1800.0


def keep(path, now: float) -> None:
    store = WorkerStore(path)
    store.load(now)
    held = Held("l1", "hash", "bob", "pulsecount", {}, {"A1": 7}, ends_at=now + LEFT_S)
    store.save(held, now).result(10)
    store.close()


def left_s(path, now: float) -> float:
    store = WorkerStore(path)
    fences, [held], _ = store.load(now)
    store.close()
    assert fences == {"A1": 7}
    return held.ends_at - now


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_set_while_the_worker_was_down_changes_no_lease(tmp_path, monkeypatch, hours):
    keep(tmp_path / "w.db", now=100.0)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + hours * 3600)
    assert left_s(tmp_path / "w.db", now=5000.0) == pytest.approx(LEFT_S, abs=60)


def test_after_a_reboot_the_wall_clock_is_all_there_is(tmp_path, monkeypatch):
    keep(tmp_path / "w.db", now=100.0)
    wall = time.time
    monkeypatch.setattr(worker_store, "_boot_id", lambda: "another")
    monkeypatch.setattr(worker_store, "_uptime", lambda: 5.0)
    monkeypatch.setattr(time, "time", lambda: wall() + 600)
    assert left_s(tmp_path / "w.db", now=0.0) == pytest.approx(LEFT_S - 600, abs=60)
