"""What a station's pyproject.toml says in `[tool.fieldstation.station]`: its config class and its procedures."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any

from fieldstation.station.config import Config
from fieldstation.station.errors import StationConfigError
from fieldstation.station.place import Place, project_table

BUILT_IN = ("dummy_procedure", "system_checks")


@dataclass(frozen=True, slots=True)
class Project:
    """The class of the config and the procedures by name, as `module:function` or the name of an entry point."""

    config_class: type[Config]
    procedures: dict[str, str]

    def load_config(self) -> Config:
        """Read the config in force."""
        return self.config_class.load()


def open_project(place: Place) -> Project:
    """Read the table and import the config class; the project's folder (and its `src`) become importable."""
    for folder in (place.project_dir / "src", place.project_dir):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    table = project_table(place.project_dir).get("tool", {}).get("fieldstation", {}).get("station", {})
    config_class = Config
    if "config" in table:
        config_class = _import(table["config"], "config")
        if not (isinstance(config_class, type) and issubclass(config_class, Config)):
            raise _wrong("config", f"{table['config']} is no subclass of fieldstation.station.Config")
    procedures = table.get("procedures", dict.fromkeys(BUILT_IN))
    return Project(config_class, {name: str(target or name) for name, target in procedures.items()})


def entrypoint_of(name: str, target: str) -> str:
    """Return `module:function` of a procedure. It is not imported here: its faults are its own process's business."""
    if ":" in target:
        return target
    from importlib import metadata  # heavy, and most procedures are named by module

    for point in metadata.entry_points(group="fieldstation.procedures", name=target):
        return point.value
    raise _wrong(f"procedures.{name}", f"{target!r} is neither module:function nor the name of a procedure")


def wanted_procedures(project: Project, config: Config) -> dict[str, str]:
    """Return the procedures to run: those whose section in the config is not null (or that have none)."""
    return {n: target for n, target in project.procedures.items() if getattr(config, n, True) is not None}


def _import(target: str, key: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        raise _wrong(key, f"{target} cannot be imported: {type(error).__name__}: {error}") from error


def _wrong(key: str, problem: str) -> StationConfigError:
    return StationConfigError(key=repr(f"tool.fieldstation.station.{key}"), source="pyproject.toml", problem=problem)
