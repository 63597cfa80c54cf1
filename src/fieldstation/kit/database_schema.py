"""Columns of a table: from a dataclass, from a first row, from what the database already has. Pure, no connection."""

from __future__ import annotations

import dataclasses
import json
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
    return (value - _EPOCH) // timedelta(microseconds=1) * 1000


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


def encoder(table: str, columns: Mapping[str, Kind]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Return a function from a row to the tuple that is stored; it raises TableError for what does not fit."""
    plan = [(name, frozenset(kind.accepts), kind) for name, kind in columns.items()]
    known = columns.keys()

    def encode(row: Mapping[str, Any]) -> tuple[Any, ...]:
        if not row.keys() <= known:
            unknown = ", ".join(sorted(row.keys() - known))
            raise TableError(table=table, problem=f"it has no column {unknown}; its columns are {', '.join(known)}")
        values = []
        for name, accepts, kind in plan:
            value = row.get(name)
            if value is not None:
                if type(value) not in accepts:
                    value = _fit(table, name, kind, value)
                if kind.store is not None:
                    try:
                        value = kind.store(value)
                    except (ValueError, TypeError, OverflowError) as error:
                        raise TableError(table=table, problem=f"{name}: {error}") from error
            values.append(value)
        return tuple(values)

    return encode


def _fit(table: str, name: str, kind: Kind, value: object) -> object:
    # Subclasses (an IntEnum, a numpy float64) are what they are; a bool in a number column is a mistake.
    if isinstance(value, kind.accepts) and not isinstance(value, bool):
        return value
    wanted = " or ".join(t.__name__ for t in kind.accepts)
    raise TableError(table=table, problem=f"{name} takes {wanted}, not {type(value).__name__} {value!r:.40}")
