"""Merge a TOML file, the environment and overrides into one dictionary and call the class it is given.

Later wins: defaults of the class, then the file, then the environment, then overrides (the command line).
The class is any callable with named fields; pydantic models and dataclasses are recognised without importing pydantic.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fieldstation.core.errors import ConfigError, first_problem

T = TypeVar("T")

PREFIX = "FIELDSTATION"

_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; every way in which that fails is a ConfigError that names the file (and the line)."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} is not valid TOML: {error}.") from error


def section(data: Mapping[str, Any], dotted: str) -> dict[str, Any]:
    """Return the table `a.b.c` of `data`, empty when it is absent."""
    table: Any = data
    for key in filter(None, dotted.split(".")):
        table = table.get(key, {})
        if not isinstance(table, Mapping):
            raise ConfigError(f"[{dotted}] must be a table, not {type(table).__name__}.")
    return dict(table)


def fields_of(cls: Any) -> dict[str, Any]:
    """Return name (or alias, as a file writes it) -> type of the fields `cls` takes; empty when it does not tell."""
    if hasattr(cls, "model_fields"):
        return {field.alias or name: field.annotation for name, field in cls.model_fields.items()}
    if dataclasses.is_dataclass(cls) and isinstance(cls, type):
        hints = typing.get_type_hints(cls)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
    return {}


def _variables(
    cls: Any, dotted: str, environ: Mapping[str, str], aliases: Mapping[str, Iterable[str]]
) -> dict[str, str]:
    """Return field -> the variable that sets it: `FIELDSTATION_<SECTION>_<KEY>`, else the first alias that is set."""
    stem = "_".join([PREFIX, *dotted.upper().replace("-", "_").split(".")]).rstrip("_")
    found = {}
    for name in fields_of(cls):
        for variable in (f"{stem}_{name.upper().replace('-', '_')}", *aliases.get(name, ())):
            if environ.get(variable, "") != "":
                found[name] = variable
                break
    return found


def _parsed(text: str, kind: Any) -> Any:
    """Turn an environment variable into what a dataclass or a list setting needs; pydantic does the rest itself."""
    kinds = set(typing.get_args(kind)) - {type(None)} if isinstance(kind, types.UnionType) else {kind}
    origins = {typing.get_origin(kind) or kind for kind in kinds}
    if origins & {list, tuple, set, frozenset}:
        return [part.strip() for part in text.split(",") if part.strip()]
    if bool in kinds and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    for number in (int, float):
        if number in kinds:
            with suppress(ValueError):
                return number(text)
    return Path(text) if Path in kinds else text


def refuse_unknown(cls: Any, values: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Raise for a key that `cls` does not know, naming the nearest one that it does."""
    known = fields_of(cls)
    if not known:
        return
    open_model = getattr(cls, "model_config", {}).get("extra") == "allow"
    for key, value in values.items():
        if key not in known:
            if open_model:
                continue
            near = difflib.get_close_matches(key, known, n=1)
            mend = f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(sorted(known))
            raise ConfigError(key=repr(prefix + key), source=source, problem=f"there is no such setting; {mend}")
        for path, inner, table in _tables(known[key], value, prefix + key):
            refuse_unknown(inner, table, source, f"{path}.")


def _tables(kind: Any, value: Any, path: str) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Find the tables inside `value` whose class the annotation `kind` tells: X, X | None, list[X], dict[str, X]."""
    inner = typing.get_args(kind)
    if isinstance(value, Mapping) and fields_of(kind):
        yield path, kind, value
    elif isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        candidates = [option for option in inner if fields_of(option)]
        if len(candidates) == 1:  # of several, pydantic decides which one is meant
            yield from _tables(candidates[0], value, path)
    elif isinstance(value, Mapping) and len(inner) == 2:
        for name, table in value.items():
            yield from _tables(inner[1], table, f"{path}.{name}")
    elif isinstance(value, list) and inner:
        for number, table in enumerate(value):
            yield from _tables(inner[0], table, f"{path}.{number}")


def load(
    cls: Callable[..., T],
    *,
    file: Path | None = None,
    table: str = "",
    values: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    aliases: Mapping[str, Iterable[str]] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> T:
    """Build `cls` from the table `table` of `file` (or from `values`), the environment and `overrides`.

    Overrides that are None or () are left out: command line options that were not given do not hide the file. A list
    in the environment is written with commas. Only settings of `cls` itself can be set there, not those of its tables.
    """
    source = (f"[{table}] of {file}" if table else str(file)) if file is not None else "the configuration"
    merged = dict(values or {})
    if file is not None:
        merged |= section(read_toml(file), table)
    refuse_unknown(cls, merged, source)
    environ = os.environ if environ is None else environ
    sources: dict[str, str] = {}
    kinds = fields_of(cls)
    for name, variable in _variables(cls, table, environ, aliases or {}).items():
        merged[name] = _parsed(environ[variable], kinds[name])
        sources[name] = f"the environment variable {variable}"
    for name, value in (overrides or {}).items():
        if value is not None and value != ():
            merged[name] = value
            sources[name] = "the command line"
    try:
        return cls(**merged)
    except (ValueError, TypeError) as error:
        raise _explain(error, source, sources) from error


def _explain(error: Exception, source: str, sources: Mapping[str, str]) -> ConfigError:
    key, problem = first_problem(error)
    problem = problem.rstrip(".")
    if not key:
        return ConfigError(f"{source[:1].upper()}{source[1:]} is wrong: {problem}.")
    where = sources.get(key.partition(".")[0], source)
    return ConfigError(key=repr(key), source=where, problem=problem[:1].lower() + problem[1:])
