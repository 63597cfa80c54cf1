"""SQLite as we use it on the edge: WAL, every commit synced, numbered SQL files, one writer with group commit."""

from __future__ import annotations

import queue
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fieldstation.core.errors import SchemaTooNewError, StoreError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

T = TypeVar("T")

_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")


def connect(path: Path, *, read_only: bool = False, timeout_s: float = 5.0) -> sqlite3.Connection:
    """Open `path` with foreign keys on, WAL and `synchronous=FULL`; transactions are begun explicitly."""
    address = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            address, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            if not read_only:
                _switch_to_wal(connection, timeout_s)
                connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")  # the file itself is read here for the first time
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise StoreError(path=path, problem=error) from error
    connection.row_factory = sqlite3.Row
    return connection


def _switch_to_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    # SQLite's own waiting for a lock does not cover this switch, which two processes may make at the same moment.
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def numbered(folder: Traversable) -> list[tuple[int, str]]:
    """Return (number, SQL text) of the files `0001_what.sql`, `0002_...` in order; a gap is a mistake of ours."""
    found = sorted((int(m[1]), f) for f in folder.iterdir() if (m := _NUMBERED.fullmatch(f.name)))
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the numbered SQL files in {folder} have gaps or twins")
    return [(number, file.read_text()) for number, file in found]


def migrate(connection: sqlite3.Connection, steps: Iterable[tuple[int, str]], path: Path) -> None:
    """Apply the steps that the database's `user_version` has not seen, each in a transaction of its own.

    A step that fails leaves the database as the step before it did. Two processes may start this together.
    """
    steps = list(steps)
    known = steps[-1][0] if steps else 0
    found = _version(connection)
    if found > known:
        raise SchemaTooNewError(path=path, found=found, known=known)
    for number, text in steps[found:]:
        try:
            connection.execute("BEGIN IMMEDIATE")
            # Read again: whoever held the lock before us may have applied it.
            if _version(connection) < number:
                for statement in _statements(text):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise StoreError(path=path, problem=f"step {number} of its schema failed: {error}") from error


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(text: str) -> Iterator[str]:
    # Not `executescript`: it commits what is open before it begins. A trigger's inner `;` does not end a statement.
    statement = ""
    for piece in re.split(r"(?<=;)", text):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


class Writer:
    """The one thread that writes to a database. Jobs that wait together share one commit (group commit).

    A job's Future is resolved after the commit that holds it is on disk; a job that raises is rolled back alone.
    """

    def __init__(self, connection: sqlite3.Connection, *, batch: int = 500) -> None:
        self._connection = connection
        self._batch = batch
        self._jobs: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], object], Future[object]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._closing = threading.Lock()
        self._closed = False
        self._thread.start()

    def submit(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run `job(connection)` in the next transaction; the Future resolves once it is durable."""
        future: Future[T] = Future()
        # Under the lock, so that no job can slip in behind the end mark and wait for ever.
        with self._closing:
            if self._closed:
                raise StoreError("The store is closed; nothing more can be written to it.")
            self._jobs.put((job, future))  # type: ignore[arg-type]  # the queue forgets T, the Future keeps it
        return future

    def close(self) -> None:
        """Write what is waiting, then close the connection."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            ended = False
            while len(batch) < self._batch and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    ended = True
                    break
                batch.append(following)
            self._commit(batch)
            if ended:
                return

    def _commit(self, batch: list[tuple[Callable[[sqlite3.Connection], object], Future[object]]]) -> None:
        # From here on a Future can no longer be cancelled: its job either becomes durable or fails.
        batch = [(job, future) for job, future in batch if future.set_running_or_notify_cancel()]
        if not batch:
            return
        done: list[tuple[Future[object], object]] = []
        failed: list[tuple[Future[object], BaseException]] = []
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            for job, future in batch:
                run("SAVEPOINT job")
                try:
                    done.append((future, job(self._connection)))
                except BaseException as error:
                    # A full disk ends the whole transaction by itself: then all of the batch has failed.
                    if not self._connection.in_transaction:
                        raise
                    run("ROLLBACK TO job")
                    failed.append((future, error))
                run("RELEASE job")
            run("COMMIT")
        except BaseException as error:  # whatever it was, nobody may wait for ever, and the thread lives on
            if self._connection.in_transaction:
                run("ROLLBACK")
            for _, future in batch:
                future.set_exception(error)
            return
        for future, result in done:
            future.set_result(result)
        for future, problem in failed:
            future.set_exception(problem)
