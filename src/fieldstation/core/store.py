"""SQLite as we use it on the edge: WAL, every commit synced, numbered SQL files, one writer with group commit."""

from __future__ import annotations

import queue
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

from fieldstation.core.errors import SchemaTooNewError, StoreError

T = TypeVar("T")

_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")


def connect(path: Path, *, read_only: bool = False, timeout_s: float = 5.0) -> sqlite3.Connection:
    """Open `path` with foreign keys on, WAL and `synchronous=FULL`; transactions are begun explicitly."""
    try:
        if read_only:
            connection = sqlite3.connect(
                f"file:{path}?mode=ro", uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
    except (sqlite3.Error, OSError) as error:
        raise StoreError(path=path, problem=error) from error
    connection.row_factory = sqlite3.Row
    return connection


def numbered(folder: Traversable) -> list[tuple[int, str]]:
    """Return (number, SQL text) of the files `0001_what.sql`, `0002_...` in order; a gap is a mistake of ours."""
    found = sorted((int(m[1]), f) for f in folder.iterdir() if (m := _NUMBERED.fullmatch(f.name)))
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the numbered SQL files in {folder} have gaps or twins")
    return [(number, file.read_text()) for number, file in found]


def migrate(connection: sqlite3.Connection, steps: Iterable[tuple[int, str]], path: Path) -> None:
    """Apply the steps that the database's `user_version` has not seen, each in a transaction of its own."""
    steps = list(steps)
    known = steps[-1][0] if steps else 0
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > known:
        raise SchemaTooNewError(path=path, found=found, known=known)
    for number, text in steps:
        if number > found:
            connection.executescript(f"BEGIN IMMEDIATE;\n{text}\nPRAGMA user_version={number};\nCOMMIT;")


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
            if self._closed:
                return
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
        done: list[tuple[Future[object], object]] = []
        failed: list[tuple[Future[object], BaseException]] = []
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            for job, future in batch:
                run("SAVEPOINT job")
                try:
                    done.append((future, job(self._connection)))
                except Exception as error:
                    if not self._connection.in_transaction:
                        raise
                    run("ROLLBACK TO job")
                    failed.append((future, error))
                run("RELEASE job")
            run("COMMIT")
        except Exception as error:
            if self._connection.in_transaction:
                run("ROLLBACK")
            for _, future in batch:
                future.set_exception(error)
            return
        for future, result in done:
            future.set_result(result)
        for future, problem in failed:
            future.set_exception(problem)
