"""Find implementations by entry point name, and say what to install when a package is not here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from fieldstation.core.errors import FieldstationError, MissingExtraError

GROUPS = ("drivers", "sources", "procedures", "uplinks", "nodes", "approvers")


class UnknownPluginError(FieldstationError):
    """There is no {kind} named {name!r} here; found: {known}. `fieldstation plugins` lists where each comes from."""


class BrokenPluginError(FieldstationError):
    """The {kind} {name!r} from {distribution} does not load: {problem}"""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point: its group without the `fieldstation.` prefix, its name and where it comes from."""

    group: str
    name: str
    target: str
    distribution: str
    problem: str | None = None


def _entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=f"fieldstation.{group}")}


def load(group: str, name: str) -> Any:
    """Import and return the object registered as `name` in entry point group `fieldstation.<group>`."""
    points = _entry_points(group)
    kind = group.removesuffix("s")
    if name not in points:
        raise UnknownPluginError(kind=kind, name=repr(name), known=", ".join(sorted(points)) or "none")
    try:
        return points[name].load()
    except MissingExtraError:
        raise
    except Exception as error:
        raise BrokenPluginError(
            kind=kind, name=repr(name), distribution=_distribution(points[name]), problem=error
        ) from error


def listing() -> list[Plugin]:
    """Return every registered plugin, tried: `problem` says why one does not load."""
    found = []
    for group in GROUPS:
        for name, point in sorted(_entry_points(group).items()):
            problem = None
            try:
                point.load()
            except Exception as error:
                problem = str(error)
            found.append(Plugin(group, name, point.value, _distribution(point), problem))
    return found


def _distribution(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"


def require(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import `module`, or raise the sentence that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(feature=feature, extra=extra) from error


def lazy_names(package: str, extra: str | None, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module `__getattr__` that imports `names` (name -> module) on first use.

    A package face offers its documented names this way and imports nothing that needs `extra` until one is used.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - it becomes the module's __getattr__
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(names[name], package), name)
        except ImportError as error:
            # An import that fails inside our own tree is a bug of ours, not a missing extra.
            ours = (error.name or "").partition(".")[0] == "fieldstation"
            if isinstance(error, MissingExtraError) or extra is None or ours:
                raise
            raise MissingExtraError(feature=f"{package}.{name}", extra=extra) from error
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
