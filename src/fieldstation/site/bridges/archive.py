"""Pipeline output to an archive like a station's: a SQLite file, and a CSV file for each day. Image `node:archive`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from google.protobuf.struct_pb2 import Struct

from fieldstation.core.store import Writer, connect
from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.node import Declared
from fieldstation.pipeline.node import exit as exit_node
from fieldstation.site.bridges.record import fields
from fieldstation.station.archive import DayFiles

SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL, timestamp REAL NOT NULL, body TEXT NOT NULL
)
"""


class Archive:
    """Stores records, each id once. `store` returns when the record is on the disk; those that wait share a commit."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "archive.sqlite3"
        connection = connect(self.path)
        connection.execute(SCHEMA)
        self._writer = Writer(connection)
        # As a station's archive: the store is what counts, the files follow it for the tools that read them.
        self._days = DayFiles(folder / "messages")

    def store(self, row: tuple[str, str, float, str]) -> asyncio.Future[bool]:
        """Store (id, source, timestamp, body); resolves to whether it was new."""

        def work(connection: sqlite3.Connection) -> bool:
            found = connection.execute(
                "INSERT OR IGNORE INTO message (id, source, timestamp, body) VALUES (?, ?, ?, ?)", row
            )
            return found.rowcount == 1

        return asyncio.wrap_future(self._writer.submit(work))

    def follow(self, timestamp: float, body: str) -> None:
        """Append to the file of the day."""
        self._days.append([(timestamp, body)])

    def close(self) -> None:
        """Write what is waiting, and close."""
        self._writer.close()


_archives: dict[str, Archive] = {}


async def keep(sdk: ProcessContext, payload: Struct) -> None:
    """Store a record once, before it is acknowledged, in `folder` (config; relative to the manifest; `archive`).

    A message that is no record is kept too, whole, under its request id. Back-pressure: at most 64 are on their way to
    the disk; the rest waits in the stream.
    """
    folder: str = await sdk.centralized_config.get("folder", str, "archive")
    if folder not in _archives:
        _archives[folder] = await asyncio.to_thread(Archive, Path(folder))
    row = row_of(fields(payload), sdk.get_request_id() or str(uuid.uuid4()))
    if await _archives[folder].store(row):
        _archives[folder].follow(row[2], row[3])


async def _close(sdk: ProcessContext) -> None:
    for opened in _archives.values():
        await asyncio.to_thread(opened.close)
    _archives.clear()


archive: Declared = exit_node(keep, concurrency=64, hand_back_after=30.0)
archive.finalizer(_close)


def row_of(found: dict[str, Any], request: str) -> tuple[str, str, float, str]:
    """Return id, source, timestamp and body of a message as it is stored."""
    time = found.get("time")
    timestamp = float(time) if isinstance(time, int | float) else 0.0
    body = json.dumps({"variant": "data", "data": found.get("values", found), "source": found.get("source", "")})
    return str(found.get("id") or request), str(found.get("source", "")), timestamp, body
