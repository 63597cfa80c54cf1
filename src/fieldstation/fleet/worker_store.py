"""What a worker must still know after a kill -9: fencing numbers, leases, events that nobody confirmed, which devices
are out of service."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from concurrent.futures import Future
from importlib.resources import files
from pathlib import Path

from fieldstation.core.store import Writer, connect, migrate, numbered
from fieldstation.fleet.holding import Held
from fieldstation.fleet.model import Health, OutOfService


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WorkerStore:
    """One SQLite file. Writes return Futures that resolve when they are on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        connection = connect(path)
        migrate(connection, numbered(files("fieldstation.fleet") / "sql"), path)
        self._connection = connection
        self._boot = _boot_id()
        self._next_event: int = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM event").fetchone()[0]
        self._writer = Writer(connection)

    def load(self, now: float) -> tuple[dict[str, int], list[Held], list[tuple[int, str, str, str]]]:
        """Return (fences, leases, events as (id, lease, serial, body)); call it before anything is written.

        Leases that have ended are among them, without fences, for as long as they may fetch what they are owed.
        """
        rows = self._connection.execute
        fences = {row["serial"]: row["fence"] for row in rows("SELECT serial, fence FROM fence")}
        leases = []
        for row in rows("SELECT * FROM lease"):
            same_boot = row["boot"] == self._boot and self._boot != ""
            left = row["ends_uptime"] - _uptime() if same_boot else row["ends_wall"] - time.time()
            held = Held.parse({**json.loads(row["body"]), "for_s": left}, now)
            held.ours = None if row["ours"] is None else bool(row["ours"])
            held.reasons = dict(json.loads(row["body"]).get("reasons", {}))
            if not held.fences:
                held.ended_at = min(held.ends_at, now)
            leases.append(held)
        found = rows("SELECT id, lease, serial, body FROM event WHERE lease IN (SELECT id FROM lease) ORDER BY id")
        events = [tuple(row) for row in found]
        # Nobody can fetch what is left of leases that are forgotten.
        self._writer.submit(lambda db: _run(db, "DELETE FROM event WHERE lease NOT IN (SELECT id FROM lease)"))
        return fences, leases, events

    def load_out_of_service(self) -> dict[str, OutOfService]:
        """Return which devices are to be left alone, by serial; call it before anything is written."""
        rows = self._connection.execute("SELECT serial, health, reason FROM out_of_service")
        return {row["serial"]: OutOfService(Health(row["health"]), row["reason"]) for row in rows}

    def save_out_of_service(self, serial: str, out: OutOfService | None) -> Future[None]:
        """Keep that a device is to be left alone, or no longer (None)."""
        if out is None:
            return self._writer.submit(lambda db: _run(db, "DELETE FROM out_of_service WHERE serial = ?", serial))
        row = (serial, out.health.value, out.reason)
        return self._writer.submit(lambda db: _run(db, "INSERT OR REPLACE INTO out_of_service VALUES (?, ?, ?)", *row))

    def save(self, held: Held, now: float) -> Future[None]:
        """Keep a lease and raise the fencing numbers of its devices, in one transaction. Of a lease that has ended,
        when it ended takes the place of when it ends."""
        body = {**held.body(now), "reasons": held.reasons}
        left = body.pop("for_s") if held.ended_at is None else held.ended_at - now
        lease = (held.id, json.dumps(body), self._boot, _uptime() + left, time.time() + left, held.ours)
        fences = list(held.fences.items())

        def job(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?)", lease)
            db.executemany(
                "INSERT INTO fence VALUES (?, ?) ON CONFLICT (serial) DO UPDATE SET fence = max(fence, excluded.fence)",
                fences,
            )

        return self._writer.submit(job)

    def forget(self, lease_id: str) -> Future[None]:
        """Drop a lease that ended long ago, and what nobody has fetched of it."""

        def job(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM lease WHERE id = ?", (lease_id,))
            db.execute("DELETE FROM event WHERE lease = ?", (lease_id,))

        return self._writer.submit(job)

    def new_event_id(self) -> int:
        """Return a number that no stored event has."""
        self._next_event += 1
        return self._next_event - 1

    def save_events(self, events: Iterable[tuple[int, str, str, str]]) -> Future[None]:
        """Keep (id, lease, serial, body) until delivered."""
        rows = list(events)

        def job(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?)", rows)

        return self._writer.submit(job)

    def delivered(self, event_id: int) -> Future[None]:
        """Drop an event that its receiver confirmed."""
        return self._writer.submit(lambda db: _run(db, "DELETE FROM event WHERE id = ?", event_id))

    def close(self) -> None:
        """Write what is waiting and let go of the file."""
        self._writer.close()


def _run(db: sqlite3.Connection, statement: str, *values: object) -> None:
    db.execute(statement, values)
