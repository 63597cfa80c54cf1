"""What the writer does when the disk is full or the store is broken."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from fieldstation.core.errors import StoreError
from fieldstation.station.store import DAYS, NewRow, Store, open_for_writing

log = logging.getLogger(__name__)

BALLAST_BYTES = 4_000_000
DROP_AT_ONCE = 50
STEPS = 20
CHECK_BELOW_BYTES = 16_000_000
_FULL = {sqlite3.SQLITE_FULL}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _code(error: BaseException | None) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_full(error: sqlite3.Error, folder: Path) -> bool:
    """Say whether `error` comes of a full disk. Where the log cannot grow SQLite only says `disk I/O error`."""
    if _code(error) in _FULL:
        return True
    return _code(error) == sqlite3.SQLITE_IOERR and _free_bytes(folder) < BALLAST_BYTES


def is_corrupt(error: BaseException | None) -> bool:
    """Say whether `error` means that the file itself is broken."""
    return _code(error) in _CORRUPT or "malformed" in str(error)


class Ballast:
    """A file that only takes up room: it is given up when the disk is full, because to delete rows takes room too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __bool__(self) -> bool:
        return self._path.exists()

    def fill(self, size: int = BALLAST_BYTES, spare: int = 3 * BALLAST_BYTES) -> None:
        """Take `size` bytes, if `spare` are left then; with less room take what there is beyond that."""
        size = min(size, _free_bytes(self._path.parent) - spare)
        if self._path.exists() or size < BALLAST_BYTES // 8:
            return
        with contextlib.suppress(OSError), self._path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    @contextlib.contextmanager
    def given_up(self) -> Iterator[None]:
        """Give up the room while the block runs."""
        held = self._path.stat().st_size if self._path.exists() else 0
        self._path.unlink(missing_ok=True)
        try:
            yield
        finally:
            self.fill(held or BALLAST_BYTES, spare=0)

    def make_room(self, connection: sqlite3.Connection, store: Store) -> bool:
        """Give up the ballast, fold the write-ahead log away, drop delivered messages; returns whether that helped."""
        held = self._path.stat().st_size if self._path.exists() else 0
        self._path.unlink(missing_ok=True)
        dropped = 0
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            # In small steps, each folded away before the next: the log of one big one would not fit.
            for _ in range(STEPS):
                connection.execute("BEGIN IMMEDIATE")
                gone = store.drop_delivered(DROP_AT_ONCE)
                connection.execute("COMMIT")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                dropped += gone
                if gone < DROP_AT_ONCE:
                    break
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            log.error("the disk is full and nothing could be dropped: %s", error)
        if dropped:
            log.error("the disk is full: %d delivered messages were dropped from the archive", dropped)
        # Taken back before anything more is stored: without it nothing could ever be dropped again. What was dropped
        # left its room inside the store; outside, only the write-ahead log needs some.
        self.fill(held or BALLAST_BYTES, spare=BALLAST_BYTES // 4 if dropped else 0)
        return dropped > 0 or (bool(self) and _free_bytes(self._path.parent) > BALLAST_BYTES // 8)


def _free_bytes(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def open_or_rescue(path: Path, notes: list[str]) -> sqlite3.Connection:
    """Open the store. A broken one is set aside, what can be read of it is copied, and `notes` tells of it."""
    connection = None
    try:
        connection = open_for_writing(path)
        if path.stat().st_size > CHECK_BELOW_BYTES:
            # The head and the roots of the tables. A whole check of a big store would take minutes on a small computer.
            connection.execute("SELECT (SELECT max(seq) FROM message), (SELECT max(first) FROM delivery)").fetchone()
            return connection
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem == "ok":
            return connection
    except (sqlite3.DatabaseError, StoreError) as error:
        if not (is_corrupt(error) or is_corrupt(error.__cause__)):
            raise
        problem = str(error)
    if connection is not None:
        connection.close()
    return _rescue(path, problem, notes)


def _rescue(path: Path, problem: str, notes: list[str]) -> sqlite3.Connection:
    aside = path.with_name(f"{path.name}.broken-{time.time_ns()}")
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    connection = open_for_writing(path)
    saved = list(_readable(aside))
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT OR IGNORE INTO message (seq, id, timestamp, rank, owed, body, revision) VALUES (?, ?, ?, ?, ?, ?, ?)",
        saved,
    )
    # Nobody can say what of it was delivered: to send a message twice is better than never.
    connection.execute(
        "INSERT INTO delivery (uplink, rank, first, last) SELECT 1, rank, seq, seq FROM message WHERE owed = 1"
    )
    connection.execute(DAYS)
    connection.execute("COMMIT")
    note = (
        f"the message store was broken ({problem}); it is set aside as {aside.name}, "
        f"{len(saved)} messages were saved out of it and will be sent again"
    )
    log.error(note)
    notes.append(note)
    return connection


def _readable(broken: Path) -> Iterator[tuple[object, ...]]:
    # From both ends towards the broken page: a scan ends at the first page it cannot read.
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error):
            connection = sqlite3.connect(broken)
            with contextlib.closing(connection):
                query = f"SELECT seq, id, timestamp, rank, owed, body, revision FROM message ORDER BY seq {order}"  # noqa: S608 - two words of ours
                for row in connection.execute(query):
                    if row[0] not in seen and all(isinstance(value, (int, float, str)) for value in row[:6]):
                        seen.add(row[0])
                        yield row


def note_row(note: str) -> NewRow:
    """Return a log message that tells the server about `note`."""
    body = {"variant": "log", "level": "ERROR", "subject": f"store - ERROR - {note}", "body": ""}
    return NewRow(f"note-{os.urandom(12).hex()}", time.time(), 1, json.dumps(body, separators=(",", ":")))
