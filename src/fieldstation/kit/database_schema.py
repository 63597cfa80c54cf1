"""Columns of a table: from a dataclass, from a first row, from what the database already has. Pure, no connection."""

from __future__ import annotations

import dataclasses
import json
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fieldstation.core.errors import FieldstationError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TableError(FieldstationError):
    """The table {table} cannot take this: {problem}."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of column: the type SQLite is told, which Python types fit, how a value goes in."""

    sql: str
    accepts: tuple[type, ...]
    store: Callable[[Any], Any] | None = None


def to_ns(value: datetime) -> int:
    """Return nanoseconds since 1970 in UTC; a time without a zone is refused, as nobody could say when it was."""
    if value.tzinfo is None:
        raise ValueError(f"the time {value.isoformat()} has no time zone; use datetime.now(UTC)")
    since = value - _EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def from_ns(value: int) -> datetime:
    """Return the UTC time of nanoseconds since 1970 (microseconds are kept)."""
    return _EPOCH + timedelta(microseconds=value // 1000)


# The declared names are what a reading connection recognises to give back times, truth values and structures.
INTEGER = Kind("INTEGER", (int,))
REAL = Kind("REAL", (float, int))
TEXT = Kind("TEXT", (str,))
BLOB = Kind("BLOB", (bytes, bytearray, memoryview))
TRUTH = Kind("FS_BOOL", (bool,), int)
TIME = Kind("FS_TIME", (datetime,), to_ns)
JSON = Kind("FS_JSON", (dict, list, tuple), lambda value: json.dumps(value, allow_nan=False))

ANY = Kind("ANY", (int, float, str, bytes))  # a column of another program whose type says nothing

# In the order of looking: bool is an int too, and must be found first.
KINDS = (TRUTH, INTEGER, REAL, TEXT, BLOB, TIME, JSON)
CONVERTERS: dict[str, Callable[[bytes], Any]] = {
    TRUTH.sql: lambda data: bool(int(data)),
    TIME.sql: lambda data: from_ns(int(data)),
    JSON.sql: json.loads,
}


def quoted(name: str) -> str:
    """Return a checked name as SQL text; the quotes are for names such as `when` and `order`."""
    return f'"{name}"'


def check_name(name: str, what: str) -> str:
    """Return a table or column name that is safe inside SQL text, else TableError."""
    if not _NAME.fullmatch(name) or name.lower().startswith("sqlite_"):
        raise TableError(table=repr(name), problem=f"a {what} name is letters, digits and _, at most 63")
    return name


def kind_of_value(table: str, name: str, value: object) -> Kind:
    """Return the kind of column that `value` needs."""
    for kind in KINDS:
        if any(type(value) is accepted for accepted in kind.accepts):
            return kind
    raise TableError(table=table, problem=f"{name} is a {type(value).__name__}, which has no column type")


def columns_of_row(table: str, row: Mapping[str, Any]) -> dict[str, Kind]:
    """Return the columns a first row declares; None says nothing about its type and is refused here."""
    columns = {}
    for name, value in row.items():
        if value is None:
            raise TableError(table=table, problem=f"the first row has no value for {name}, so its type is unknown")
        columns[check_name(name, "column")] = kind_of_value(table, name, value)
    return columns


def columns_of_class(table: str, cls: type) -> dict[str, Kind]:
    """Return the columns of a dataclass; `X | None` is the column of X."""
    columns = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        columns[check_name(field.name, "column")] = _kind_of_hint(table, field.name, hints[field.name])
    return columns


def _kind_of_hint(table: str, name: str, hint: Any) -> Kind:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(rest) == 1:
            hint = rest[0]
    hint = typing.get_origin(hint) if typing.get_origin(hint) is not None else hint
    for kind in KINDS:
        if hint in kind.accepts:
            return kind
    raise TableError(table=table, problem=f"{name} has the type {hint!r}, which has no column type")


def kind_of_declared(declared: str) -> Kind:
    """Return the kind of a column that exists, also in tables of other programs (SQLite's affinity rules)."""
    declared = declared.upper()
    for kind in KINDS:
        if declared == kind.sql:
            return kind
    if "INT" in declared:
        return INTEGER
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return TEXT
    if any(word in declared for word in ("REAL", "FLOA", "DOUB")):
        return REAL
    return BLOB if "BLOB" in declared else ANY


class Encoder:
    """Turns rows into the tuples that are stored; what does not fit the columns is TableError."""

    def __init__(self, table: str, columns: Mapping[str, Kind]) -> None:
        self._table = table
        self._columns = columns
        self._plan = list(columns.items())
        self._seen: dict[tuple[type, ...], list[tuple[int, Callable[[Any], Any]]]] = {}
        self._getters: dict[type, Callable[[Any], tuple[Any, ...]]] = {}

    def mapping(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """Encode a row of names and values; columns left out are NULL."""
        if not row.keys() <= self._columns.keys():
            unknown = ", ".join(sorted(row.keys() - self._columns.keys()))
            problem = f"it has no column {unknown}; its columns are {', '.join(self._columns)}"
            raise TableError(table=self._table, problem=problem)
        return self._values(tuple(map(row.get, self._columns)))

    def instance(self, row: Any) -> tuple[Any, ...]:
        """Encode an instance of a dataclass."""
        getter = self._getters.get(type(row))
        if getter is None:
            getter = self._getters[type(row)] = self._getter(row)
        return self._values(getter(row))

    def _getter(self, row: Any) -> Callable[[Any], tuple[Any, ...]]:
        names = {field.name for field in dataclasses.fields(row)}
        if names == self._columns.keys() and len(names) > 1:
            return operator.attrgetter(*self._columns)
        self.mapping(dict.fromkeys(names))  # complains about a field that has no column
        return lambda row: tuple(getattr(row, name) if name in names else None for name in self._columns)

    def _values(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        # Rows of one table mostly have the same types again and again: those are checked once.
        types = tuple(map(type, row))
        if (stores := self._seen.get(types)) is None:
            row, stores = self._fitted(row), []
            for index, (value, (_, kind)) in enumerate(zip(row, self._plan, strict=True)):
                if value is not None and kind.store is not None:
                    stores.append((index, kind.store))
            if tuple(map(type, row)) == types and len(self._seen) < 1000:
                self._seen[types] = stores
        if not stores:
            return row
        values = list(row)
        for index, store in stores:
            try:
                values[index] = store(values[index])
            except (ValueError, TypeError, OverflowError) as error:
                raise TableError(table=self._table, problem=f"{self._plan[index][0]}: {error}") from error
        return tuple(values)

    def _fitted(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            value if value is None or type(value) in kind.accepts else _fit(self._table, name, kind, value)
            for value, (name, kind) in zip(row, self._plan, strict=True)
        )


def _fit(table: str, name: str, kind: Kind, value: object) -> object:
    # Subclasses (an IntEnum, a numpy float64) are what they are; a bool in a number column is a mistake.
    if isinstance(value, kind.accepts) and not isinstance(value, bool):
        return value
    wanted = " or ".join(t.__name__ for t in kind.accepts)
    raise TableError(table=table, problem=f"{name} takes {wanted}, not {type(value).__name__} {value!r:.40}")
