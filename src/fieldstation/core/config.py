"""Merge a TOML file, the environment and overrides into one dictionary and call the class it is given.

Later wins: defaults of the class, then the file, then the environment, then overrides (the command line).
The class is any callable with named fields; pydantic models and dataclasses are recognised without importing pydantic.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fieldstation.core.errors import ConfigError

T = TypeVar("T")

PREFIX = "FIELDSTATION"


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
    """Return name -> type of the fields `cls` takes, or nothing when it does not tell."""
    if hasattr(cls, "model_fields"):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    if dataclasses.is_dataclass(cls):
        return {field.name: field.type for field in dataclasses.fields(cls)}
    return {}


def from_environment(
    cls: Any, dotted: str, environ: Mapping[str, str], aliases: Mapping[str, Iterable[str]] | None = None
) -> dict[str, str]:
    """Collect `FIELDSTATION_<SECTION>_<KEY>` for the fields of `cls`, then for each alias in the order given."""
    stem = "_".join([PREFIX, *dotted.upper().replace("-", "_").split(".")]).rstrip("_")
    found = {}
    for name in fields_of(cls):
        for variable in (f"{stem}_{name.upper()}", *(aliases or {}).get(name, ())):
            if environ.get(variable, "") != "":
                found[name] = environ[variable]
                break
    return found


def refuse_unknown(cls: Any, values: Mapping[str, Any], source: str, prefix: str = "") -> None:
    """Raise for a key that `cls` does not know, naming the nearest one that it does."""
    known = fields_of(cls)
    if not known:
        return
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            mend = f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(sorted(known))
            raise ConfigError(key=repr(prefix + key), source=source, problem=f"there is no such setting; {mend}")
        if isinstance(value, Mapping) and hasattr(known[key], "model_fields"):
            refuse_unknown(known[key], value, source, f"{prefix}{key}.")


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

    Overrides that are None are left out, so that command line options without a value do not hide the file.
    """
    source = str(file) if file is not None else "the configuration"
    merged = dict(values or {})
    if file is not None:
        merged |= section(read_toml(file), table)
    refuse_unknown(cls, merged, source)
    environment = from_environment(cls, table, os.environ if environ is None else environ, aliases)
    merged |= environment
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    merged |= given
    try:
        return cls(**merged)
    except (ValueError, TypeError) as error:
        raise _explain(error, source, environment, given) from error


def _explain(error: Exception, source: str, environment: Mapping[str, Any], given: Mapping[str, Any]) -> ConfigError:
    details = getattr(error, "errors", None)
    if details is None:
        return ConfigError(key="values", source=source, problem=error)
    first = details()[0]
    path = [str(part) for part in first["loc"]]
    top = path[0] if path else ""
    where = "the command line" if top in given else "the environment" if top in environment else source
    return ConfigError(key=repr(".".join(path)), source=where, problem=first["msg"].removeprefix("Value error, "))
