"""Where a station lives: its project, its data, the root that holds its versions. Read anew at each call."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fieldstation.station.version import is_version

STATION_DIR = "FIELDSTATION_STATION_DIR"


@dataclass(frozen=True, slots=True)
class Place:
    """The folders and the two names of one station. `root_dir` holds one folder per version and the CLI pointer."""

    project_dir: Path
    data_dir: Path
    root_dir: Path
    name: str
    version: str

    @property
    def config_file(self) -> Path:
        """The settings in force."""
        return self.project_dir / "config" / "config.json"

    @property
    def queue_file(self) -> Path:
        """The database of messages and of what is owed to uplinks."""
        return self.data_dir / "active-message-queue.sqlite3"

    @property
    def lock_file(self) -> Path:
        """What one running instance holds: shared by all versions of a deployed station."""
        inside_root = is_version(self.project_dir.name)
        return (self.project_dir.parent if inside_root else self.project_dir) / "run.lock"

    @property
    def pointer(self) -> Path:
        """The script that starts whichever version is in force."""
        return self.root_dir / f"{self.name}-cli.sh"


@lru_cache(maxsize=8)
def _pyproject(path: Path, stamp: int) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def project_table(project_dir: Path) -> dict[str, Any]:
    """Return the project's pyproject.toml; empty when there is none or it is broken."""
    path = project_dir / "pyproject.toml"
    try:
        return _pyproject(path, path.stat().st_mtime_ns)
    except (OSError, tomllib.TOMLDecodeError):
        return {}


def place_of(project_dir: Path, environ: Mapping[str, str] | None = None) -> Place:
    """Return the place of the station in `project_dir`.

    `IVY_DATA_DIR` and `IVY_ROOT_DIR` move the data and the root. Without the latter the root of a folder named like
    a version is the folder above it; that of any other folder is `~/Documents/<name>`.
    """
    environ = os.environ if environ is None else environ
    project_dir = project_dir.absolute()
    project = project_table(project_dir).get("project", {})
    name = str(project.get("name", "ivy"))
    version = str(project.get("version", "0.0.0"))
    if is_version(project_dir.name):
        root = project_dir.parent
    else:
        root = Path(environ.get("HOME", "~")).expanduser() / "Documents" / name
    return Place(
        project_dir=project_dir,
        data_dir=Path(environ.get("IVY_DATA_DIR") or project_dir / "data").absolute(),
        root_dir=Path(environ.get("IVY_ROOT_DIR") or root).absolute(),
        name=name,
        version=version,
    )


def current_place() -> Place:
    """Return the place that `FIELDSTATION_STATION_DIR` names, else the working directory's."""
    return place_of(Path(os.environ.get(STATION_DIR) or Path.cwd()))


def read_dotenv(project_dir: Path) -> dict[str, str]:
    """Return the variables of `../.env` and `config/.env`; the latter wins."""
    from dotenv import dotenv_values

    found: dict[str, str] = {}
    for path in (project_dir.parent / ".env", project_dir / "config" / ".env"):
        if path.is_file():
            found |= {key: value for key, value in dotenv_values(path).items() if value is not None}
    return found
