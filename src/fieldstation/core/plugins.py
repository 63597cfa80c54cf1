"""Find implementations by entry point name, and say what to install when a package is not here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldstation.core.errors import FieldstationError, MissingExtraError

if TYPE_CHECKING:
    from importlib import metadata

GROUPS = ("drivers", "states", "sources", "procedures", "uplinks", "nodes", "approvers")


class UnknownPluginError(FieldstationError):
    """There is no {kind} named {name!r} here; found: {known}. `fieldstation plugins` lists where each comes from."""


class BrokenPluginError(FieldstationError):
    """The {kind} {name!r} from {distribution} does not load: {problem}"""


class AmbiguousPluginError(FieldstationError):
    """There is more than one {kind} named {name!r}: {distributions}. Uninstall all but one of these packages."""


class Plugin(NamedTuple):
    """One entry point: its group without the `fieldstation.` prefix, its name and where it comes from."""

    group: str
    name: str
    target: str
    distribution: str
    problem: str | None = None


def load(group: str, name: str) -> Any:
    """Import and return the object registered as `name` in entry point group `fieldstation.<group>`."""
    # Imported when asked: it brings the e-mail parser, which every small process with a lazy face would pay for.
    from importlib import metadata

    points = metadata.entry_points(group=f"fieldstation.{group}")
    kind = group.removesuffix("s")
    named = list(points.select(name=name))
    if not named:
        raise UnknownPluginError(kind=kind, name=name, known=", ".join(sorted(points.names)) or "none")
    if len(named) > 1:
        raise AmbiguousPluginError(kind=kind, name=name, distributions=" and ".join(map(_distribution, named)))
    try:
        return named[0].load()
    except MissingExtraError:
        raise
    except Exception as error:
        raise BrokenPluginError(
            kind=kind, name=name, distribution=_distribution(named[0]), problem=_problem(error)
        ) from error


def listing() -> list[Plugin]:
    """Return every registered plugin, tried: `problem` says why one does not load."""
    from importlib import metadata

    found = []
    for group in GROUPS:
        for point in sorted(metadata.entry_points(group=f"fieldstation.{group}"), key=lambda point: point.name):
            problem = None
            try:
                point.load()
            except Exception as error:
                problem = _problem(error)
            found.append(Plugin(group, point.name, point.value, _distribution(point), problem))
    return found


def _problem(error: Exception) -> str:
    return str(error) if isinstance(error, FieldstationError) else f"{type(error).__name__}: {error}"


def _distribution(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"


def require(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import `module`, or raise the sentence that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if _is_ours(error):
            raise
        raise MissingExtraError(feature=feature, extra=extra) from error


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Make modules look absent to what is imported meanwhile, unless they have been imported.

    For libraries that import others only when these are installed, and that we use without them.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: the documented way to fail an import
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _is_ours(error: ImportError) -> bool:
    # An import that fails inside our own tree is a bug of ours, not a missing extra; or it has its sentence already.
    return isinstance(error, MissingExtraError) or (error.name or "").partition(".")[0] == "fieldstation"


class LazyNames:
    """What `lazy_names` returns: called with a name as a module's `__getattr__`; `offered` is name -> module."""

    def __init__(self, package: str, extra: str | None, offered: Mapping[str, str]) -> None:
        self.package = package
        self.extra = extra
        self.offered = dict(offered)

    def __call__(self, name: str) -> Any:
        """Import the name and keep it in the face; MissingExtraError when a package of the extra is not here."""
        if name not in self.offered:
            raise AttributeError(f"module {self.package!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(self.offered[name], self.package), name)
        except ImportError as error:
            if self.extra is None or _is_ours(error):
                raise
            raise MissingExtraError(feature=f"{self.package}.{name}", extra=self.extra) from error
        setattr(sys.modules[self.package], name, value)
        return value


def lazy_names(package: str, extra: str | None, names: Mapping[str, str]) -> LazyNames:
    """Return a module `__getattr__` that imports `names` (name -> module) on first use.

    A package face offers its documented names this way and imports nothing that needs `extra` until one is used.
    """
    return LazyNames(package, extra, names)
