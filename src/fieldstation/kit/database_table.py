"""One table: append rows (grouped into few commits), look at a span of time, thin it out."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fieldstation.kit.database_rows import Rows
from fieldstation.kit.database_schema import TIME, Encoder, Kind, TableError, quoted, to_ns

if TYPE_CHECKING:
    from fieldstation.kit.database import Database

_MAX_BUFFERED = 50_000
_HOW = ("mean", "min", "max", "sum", "count")


class Table:
    """Made by `Database.table`. Threads may share one."""

    def __init__(self, database: Database, name: str, columns: Mapping[str, Kind]) -> None:
        self.name = name
        self.columns = dict(columns)
        self._database = database
        self._encoder = Encoder(name, self.columns)
        marks = ", ".join("?" * len(self.columns))
        self._listed = ", ".join(map(quoted, self.columns))
        self._quoted = quoted(name)
        self._insert = f"INSERT INTO {self._quoted} ({self._listed}) VALUES ({marks})"  # noqa: S608 - checked names
        self._lock = threading.Lock()
        self._buffer: list[tuple[Any, ...]] = []
        self._drain: Future[None] | None = None  # the job that will write the buffer
        self._unwatched: list[Future[None]] = []  # jobs with rows that nobody waited for

    # -- append

    def append(self, row: Mapping[str, Any] | Any = None, /, *, wait: bool = True, **fields: Any) -> None:
        """Append one row: a mapping, a dataclass instance, or keyword arguments. Columns left out are NULL.

        Returns when it is on disk. With `wait=False` it returns at once and the row is written with its neighbours in
        one commit a moment later; `flush` waits for that, and an error of an earlier row is raised by the next call.
        """
        self._put([self._encode(row, fields)], wait)

    def append_many(self, rows: Iterable[Mapping[str, Any] | Any], *, wait: bool = True) -> int:
        """Append rows; with `wait` all of them in one commit or none. Returns how many."""
        encoded = [self._encode(row, None) for row in rows]
        self._put(encoded, wait)
        return len(encoded)

    def _encode(self, row: Mapping[str, Any] | Any, fields: Mapping[str, Any] | None) -> tuple[Any, ...]:
        if row is None:
            return self._encoder.mapping(fields or {})
        if isinstance(row, Mapping):
            return self._encoder.mapping({**row, **fields} if fields else row)
        if dataclasses.is_dataclass(row) and not isinstance(row, type) and not fields:
            return self._encoder.instance(row)
        raise TypeError(f"a row is a mapping or a dataclass instance, not {type(row).__name__}")

    def flush(self) -> None:
        """Wait until everything appended so far is on disk; raises when a row could not be written."""
        with self._lock:
            waiting, self._unwatched = self._unwatched, []
        for drain in waiting:
            self._database.wait(drain)

    def _put(self, rows: list[tuple[Any, ...]], wait: bool) -> None:
        with self._lock:
            if self._drain is not None and self._drain.done():
                # The transaction could not even begin, and whoever put these rows is told so.
                self._drain, self._buffer = None, []
            self._buffer.extend(rows)
            if self._drain is None:
                self._drain = self._database.submit(self._write)
            drain = self._drain
            if not wait and drain not in self._unwatched[-1:]:
                self._unwatched.append(drain)
            full = len(self._buffer) > _MAX_BUFFERED
            done = []
            while self._unwatched and self._unwatched[0].done():
                done.append(self._unwatched.pop(0))
        # A disk that is slower than the caller: let it catch up instead of filling the memory.
        if wait or full:
            self._database.wait(drain)
        for earlier in done:
            self._database.wait(earlier)

    def _write(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            rows, self._buffer = self._buffer, []
            self._drain = None
        connection.executemany(self._insert, rows)

    # -- look

    @property
    def time_column(self) -> str:
        """The first column that holds times."""
        for name, kind in self.columns.items():
            if kind is TIME:
                return name
        raise TableError(table=self.name, problem="it has no column of times")

    def rows(self, where: str = "", parameters: Iterable[Any] = (), *, limit: int | None = None) -> Rows:
        """Return rows in the order they were appended; `where` is SQL with `?` for each of `parameters`."""
        query = f"SELECT {self._listed} FROM {self._quoted}"  # noqa: S608 - checked names
        if where:
            query += f" WHERE {where}"
        query += " ORDER BY rowid" + (f" LIMIT {int(limit)}" if limit is not None else "")
        return self._database.query(query, tuple(parameters))

    def latest(self, count: int = 1) -> Rows:
        """Return the `count` latest rows by time, newest first."""
        time = quoted(self.time_column)
        query = f"SELECT {self._listed} FROM {self._quoted} ORDER BY {time} DESC, rowid DESC LIMIT ?"  # noqa: S608 - checked names
        return self._database.query(query, (int(count),))

    def between(self, start: datetime | None = None, end: datetime | None = None) -> Rows:
        """Return the rows with start <= time < end, in order of time; None is an open end."""
        where, parameters = self._span(start, end)
        time = quoted(self.time_column)
        query = f"SELECT {self._listed} FROM {self._quoted}{where} ORDER BY {time}, rowid"  # noqa: S608 - checked names
        return self._database.query(query, parameters)

    def downsample(
        self,
        column: str,
        every: timedelta,
        how: str = "mean",
        *,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Rows:
        """Return one row per `every`: `time` (its beginning), `column` as mean, min, max, sum or count, and `rows`."""
        if column not in self.columns:
            raise TableError(table=self.name, problem=f"it has no column {column}")
        if how not in _HOW:
            raise TableError(table=self.name, problem=f"it can be thinned by {', '.join(_HOW)}, not by {how!r}")
        step = every // timedelta(microseconds=1) * 1000
        if step <= 0:
            raise TableError(table=self.name, problem="the step must be longer than nothing")
        where, parameters = self._span(start, end)
        name, call, value = self.time_column, "avg" if how == "mean" else how, quoted(column)
        time = quoted(name)
        bucket = f"{time} - (({time} % {step}) + {step}) % {step}"  # rounds down before 1970, too
        query = (
            f'SELECT {bucket} AS "{name} [FS_TIME]", {call}({value}) AS {value}, count(*) AS rows '  # noqa: S608 - checked names
            f"FROM {self._quoted}{where} GROUP BY 1 ORDER BY 1"
        )
        return self._database.query(query, parameters)

    def delete_before(self, time: datetime) -> int:
        """Delete rows older than `time`; returns how many."""
        query = f"DELETE FROM {self._quoted} WHERE {quoted(self.time_column)} < ?"  # noqa: S608 - checked names
        return self._database.execute(query, (to_ns(time),))

    def _span(self, start: datetime | None, end: datetime | None) -> tuple[str, tuple[int, ...]]:
        time = quoted(self.time_column)
        bounds = [(f"{time} >= ?", start), (f"{time} < ?", end)]
        given = [(text, to_ns(bound)) for text, bound in bounds if bound is not None]
        where = " WHERE " + " AND ".join(text for text, _ in given) if given else ""
        return where, tuple(bound for _, bound in given)
