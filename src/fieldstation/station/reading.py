"""The reader's side of the uplinks that carry ids: store what stations publish, each message once.

JetStream forgets ids after its duplicate window; a table with the id as its key does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from fieldstation.core.plugins import require
from fieldstation.core.store import connect
from fieldstation.station.config import NATSConfig

_SCHEMA = """
CREATE TABLE IF NOT EXISTS received (
    id TEXT PRIMARY KEY, station TEXT NOT NULL, kind TEXT NOT NULL, timestamp REAL NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID
"""


class Inbox:
    """A SQLite file of received messages."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._connection.execute(_SCHEMA)

    def store(self, station: str, kind: str, entries: list[dict[str, Any]]) -> int:
        """Store messages as they came off the wire, in one commit; returns how many were not there yet."""
        rows = [(e["id"], station, kind, float(e["timestamp"]), json.dumps(e["body"])) for e in entries]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            new = self._connection.executemany("INSERT OR IGNORE INTO received VALUES (?, ?, ?, ?, ?)", rows).rowcount
        except sqlite3.Error:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return new

    def ids(self) -> set[str]:
        """Return the ids of everything that was received."""
        return {row[0] for row in self._connection.execute("SELECT id FROM received")}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


async def read_stream(
    section: NATSConfig, inbox: Inbox, *, durable: str = "fieldstation-reader", batch: int = 200
) -> None:
    """Read the stations' stream into `inbox` until cancelled; acknowledged once stored."""
    nats = require("nats", extra="station", feature="Reading stations")
    client = await nats.connect(servers=list(section.servers), user=section.username, password=section.password)
    try:
        subscription = await client.jetstream().pull_subscribe(
            f"{section.subject_prefix}.*.*", durable=durable, stream=section.stream
        )
        task = asyncio.current_task()
        # Before Python 3.12 `wait_for`, which `fetch` uses, loses a cancellation that comes together with a result.
        while task is None or not task.cancelling():
            try:
                messages = await subscription.fetch(batch, timeout=1)
            except (TimeoutError, nats.errors.TimeoutError):
                continue
            for message in messages:
                _, station, kind = message.subject.rsplit(".", 2)
                if kind != "config":
                    with contextlib.suppress(ValueError, KeyError):  # not one of ours: acknowledged and left out
                        inbox.store(station, kind, [json.loads(message.data)])
                await message.ack()
    finally:
        await client.close()
