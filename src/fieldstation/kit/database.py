"""A local SQLite store for readings: declare a table, append durably, query, export. Several processes may share it.

with Database("lab.db") as db:
    readings = db.table("readings")                               # declared by its first row
    readings.append(time=datetime.now(UTC), device="pump-2", celsius=21.5)
    db.query("SELECT device, avg(celsius) FROM readings GROUP BY device")
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from fieldstation.core.errors import FieldstationError, StoreError
from fieldstation.core.store import Writer, connect, migrate, numbered
from fieldstation.kit.database_rows import Rows, write_csv, write_parquet
from fieldstation.kit.database_schema import (
    CONVERTERS,
    TIME,
    Kind,
    TableError,
    check_name,
    columns_of_class,
    columns_of_row,
    kind_of_declared,
    quoted,
    to_ns,
)
from fieldstation.kit.database_table import Table

__all__ = ["Database", "LazyTable", "QueryError", "Rows", "Table", "TableError"]

T = TypeVar("T")


class QueryError(FieldstationError):
    """The query cannot be answered: {problem}."""


class Database:
    """One SQLite file (WAL, every commit synced). Writes go through one thread; reads never wait for them."""

    def __init__(self, path: str | Path, *, timeout_s: float = 5.0) -> None:
        self.path = Path(path)
        self._timeout_s = timeout_s
        self._writer = Writer(connect(self.path, timeout_s=timeout_s), batch=2000)
        self._readers = threading.local()
        self._open_readers: list[sqlite3.Connection] = []
        self._tables: dict[str, Table] = {}
        self._lock = threading.Lock()
        for declared, convert in CONVERTERS.items():
            sqlite3.register_converter(declared, convert)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is waiting and close; raises when a row that nobody waited for could not be written."""
        try:
            for table in list(self._tables.values()):
                table.flush()
        finally:
            self._writer.close()
            with self._lock:
                readers, self._open_readers = self._open_readers, []
            for reader in readers:
                reader.close()

    # -- tables

    def table(self, declared: type | str, *, name: str | None = None) -> Table | LazyTable:
        """Return a table: of a dataclass (its fields are the columns), or by name.

        A table of a dataclass is made when it is missing, and gets a new column for each new field; a field whose
        type does not fit the column there is TableError. A named table that is not there yet takes its columns from
        the first row appended. A column of times gets an index.
        """
        if isinstance(declared, str):
            found = self._known(check_name(declared, "table"))
            return found if found is not None else LazyTable(self, declared)
        name = check_name(name or declared.__name__.lower(), "table")
        return self.declare(name, columns_of_class(name, declared))

    def declare(self, name: str, columns: Mapping[str, Kind]) -> Table:
        """Make the table, or add the columns it lacks, and return it."""
        self.wait(self.submit(lambda connection: _make(connection, name, columns)))
        self._tables[name] = table = Table(self, name, {**self._columns(name), **columns})
        return table

    def append(self, name: str, row: Mapping[str, Any], *, wait: bool = True) -> None:
        """Append to the table `name`, declaring it when this is its first row."""
        self.table(name).append(row, wait=wait)

    def tables(self) -> list[str]:
        """Return the names of the tables."""
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        return [row["name"] for row in self.query(query)]

    def _known(self, name: str) -> Table | None:
        if name not in self._tables:
            columns = self._columns(name)
            if not columns:
                return None
            self._tables[name] = Table(self, name, columns)
        return self._tables[name]

    def _columns(self, name: str) -> dict[str, Kind]:
        return self.wait(self.submit(lambda connection: _columns_there(connection, name)))

    # -- read and write

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Rows:
        """Return the rows of a SELECT; `?` or `:name` stand for `parameters`. It cannot change anything."""
        with self._select(sql, parameters) as cursor:
            return Rows([column[0].partition(" [")[0] for column in cursor.description or ()], cursor)

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> int:
        """Run one statement that writes, in a transaction of its own; returns the number of rows it touched."""
        values = _stored(parameters)

        def run(connection: sqlite3.Connection) -> int:
            return connection.execute(sql, values).rowcount

        return self.wait(self.submit(run))

    def migrate(self, steps: Path | Iterable[tuple[int, str]]) -> None:
        """Apply numbered SQL steps (a folder of `0001_what.sql`, or pairs) that this database has not seen yet."""
        ordered = numbered(steps) if isinstance(steps, Path) else list(steps)
        connection = connect(self.path, timeout_s=self._timeout_s)
        try:
            migrate(connection, ordered, self.path)
        except sqlite3.Error as error:
            raise self.explain(error) from error
        finally:
            connection.close()
        self._tables.clear()

    def submit(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run `job(connection)` in the writer's next transaction."""
        return self._writer.submit(job)

    def wait(self, future: Future[T]) -> T:
        """Return the result of a submitted job once it is on disk; SQLite's errors become sentences."""
        try:
            return future.result()
        except sqlite3.Error as error:
            raise self.explain(error) from error

    def explain(self, error: BaseException) -> BaseException:
        """Return the sentence for an error of SQLite; other errors come back as they are."""
        if not isinstance(error, sqlite3.Error):
            return error
        problem = str(error)
        if "locked" in problem:
            problem = f"another program has kept it locked for {self._timeout_s:g} s"
        known = ("locked", "full", "readonly", "disk", "malformed", "not a database", "unable to open")
        if any(word in problem for word in known):
            return StoreError(path=self.path, problem=problem)
        return QueryError(problem=problem)

    # -- out

    def export(self, path: str | Path, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> int:
        """Write the rows of a SELECT to a `.csv` or `.parquet` file, a piece at a time; returns how many."""
        path = Path(path)
        writer = {".csv": write_csv, ".parquet": write_parquet}.get(path.suffix)
        if writer is None:
            raise QueryError(problem=f"{path.name} ends neither in .csv nor in .parquet")
        with self._select(sql, parameters) as cursor:
            columns = [column[0].partition(" [")[0] for column in cursor.description or ()]
            return writer(path, columns, cursor)

    def backup(self, path: str | Path) -> None:
        """Copy the database to a new file while others write to it."""
        target = sqlite3.connect(path)
        try:
            self._reader().backup(target)
        except sqlite3.Error as error:
            raise self.explain(error) from error
        finally:
            target.close()

    def check(self) -> list[str]:
        """Return what SQLite's integrity check finds; empty when all is well."""
        found = [row["integrity_check"] for row in self.query("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    @contextlib.contextmanager
    def _select(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Iterator[sqlite3.Cursor]:
        cursor = self._reader().cursor()
        try:
            yield cursor.execute(sql, _stored(parameters))
        except sqlite3.Error as error:
            raise self.explain(error) from error
        finally:
            cursor.close()

    def _reader(self) -> sqlite3.Connection:
        # One per thread: a reader in WAL mode waits for nobody, but a connection serves one query at a time.
        reader: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if reader is None:
            reader = sqlite3.connect(
                f"file:{self.path}?mode=ro",
                uri=True,
                timeout=self._timeout_s,
                detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES,
                check_same_thread=False,
            )
            self._readers.connection = reader
            with self._lock:
                self._open_readers.append(reader)
        return reader


class LazyTable:
    """A table by name that is not there yet: its first row declares it."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self.name = name
        self._table: Table | None = None

    def append(self, row: Mapping[str, Any] | None = None, /, *, wait: bool = True, **fields: Any) -> None:
        """As Table.append; None has no type, so the first row needs a value for each column."""
        values = dict(row or {}) | fields
        self._ensure(values).append(values, wait=wait)

    def append_many(self, rows: Iterable[Mapping[str, Any]], *, wait: bool = True) -> int:
        """As Table.append_many."""
        listed = list(rows)
        return self._ensure(listed[0]).append_many(listed, wait=wait) if listed else 0

    def __getattr__(self, name: str) -> Any:
        if (table := self._found()) is None:
            raise TableError(table=self.name, problem="it has no rows yet, and so no columns")
        return getattr(table, name)

    def _found(self) -> Table | None:
        if self._table is None:
            found = self._database.table(self.name)
            self._table = found if isinstance(found, Table) else None
        return self._table

    def _ensure(self, row: Mapping[str, Any]) -> Table:
        return self._found() or self._database.declare(self.name, columns_of_row(self.name, row))


def _columns_there(connection: sqlite3.Connection, name: str) -> dict[str, Kind]:
    found = connection.execute(f"PRAGMA table_info({quoted(name)})")
    return {row["name"]: kind_of_declared(row["type"]) for row in found}


def _make(connection: sqlite3.Connection, name: str, columns: Mapping[str, Kind]) -> None:
    there = _columns_there(connection, name)
    for column, kind in columns.items():
        if column in there and there[column] is not kind:
            problem = f"its column {column} is {there[column].sql}, not {kind.sql}"
            raise TableError(table=name, problem=problem)
    if not there:
        listed = ", ".join(f"{quoted(column)} {kind.sql}" for column, kind in columns.items())
        connection.execute(f"CREATE TABLE {quoted(name)} ({listed})")
    else:
        for column, kind in columns.items():
            if column not in there:
                connection.execute(f"ALTER TABLE {quoted(name)} ADD COLUMN {quoted(column)} {kind.sql}")
    for column, kind in columns.items():
        if kind is TIME:
            connection.execute(f"CREATE INDEX IF NOT EXISTS {name}_{column} ON {quoted(name)} ({quoted(column)})")


def _stored(parameters: Sequence[Any] | Mapping[str, Any]) -> Any:
    def one(value: Any) -> Any:
        return to_ns(value) if isinstance(value, datetime) else value

    if isinstance(parameters, Mapping):
        return {name: one(value) for name, value in parameters.items()}
    return tuple(one(value) for value in parameters)
