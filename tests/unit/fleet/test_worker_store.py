"""What a worker keeps on disk: leases outlive it, and clocks that are set change none of them."""

from __future__ import annotations

import sqlite3
import time

import pytest

from fieldstation.fleet import worker_store
from fieldstation.fleet.holding import Held
from fieldstation.fleet.model import Health, OutOfService
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


def test_a_device_that_is_out_of_service_is_so_after_a_restart_until_it_is_put_back(tmp_path):
    out = OutOfService(Health.QUARANTINED, "smoke")
    for keep, found in ((out, {"A1": out}), (None, {})):
        store = WorkerStore(tmp_path / "w.db")
        store.save_out_of_service("A1", keep).result(10)
        store.close()
        store = WorkerStore(tmp_path / "w.db")
        assert store.load_out_of_service() == found
        store.close()


def test_of_an_ended_lease_what_nobody_fetched_is_kept_until_it_is_buried_and_no_longer(tmp_path):
    store = WorkerStore(tmp_path / "w.db")
    store.load(0.0)
    held = Held("l1", "hash", "bob", "pulsecount", {}, {}, ends_at=900.0, ended_at=100.0, reasons={"A1": "ended"})
    store.save(held, 100.0).result(10)
    store.save_events([(1, "l1", "A1", "kept"), (2, "of nobody", "A1", "lost")]).result(10)
    store.close()

    store = WorkerStore(tmp_path / "w.db")
    _, [again], events = store.load(500.0)
    assert (again.fences, again.reasons) == ({}, {"A1": "ended"})
    assert again.ended_at == pytest.approx(500.0, abs=60)
    assert events == [(1, "l1", "A1", "kept")]
    store.forget("l1").result(10)
    store.close()

    store = WorkerStore(tmp_path / "w.db")
    assert store.load(600.0) == ({}, [], [])
    with sqlite3.connect(tmp_path / "w.db") as db:
        assert db.execute("SELECT count(*) FROM event").fetchone() == (0,)
    db.close()
    store.close()
