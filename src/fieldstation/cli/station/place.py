"""What the station's commands share: the argument DIR, `--json`, the station that is meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.core.errors import FieldstationError
from fieldstation.station.place import STATION_DIR, Place, current_place

if TYPE_CHECKING:
    from fieldstation.station.config import Config

Command = Callable[..., Any]


class StillRunningError(FieldstationError):
    """The station (process id {pid}) has not stopped within {timeout_s} s. It drains its queue; look at its logs."""


def in_station(command: Command) -> Command:
    """Give a command the optional argument DIR."""

    def enter(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        if value is not None:
            os.environ[STATION_DIR] = str(value.absolute())

    return click.argument(
        "directory", required=False, metavar="[DIR]", expose_value=False, callback=enter,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
    )(command)  # fmt: skip


def entered() -> Place:
    """Take up the station's environment and return its place; NoStationError when there is none."""
    from fieldstation.station.main import enter

    return enter(current_place())


def config_of(place: Place) -> Config:
    """Read the config in force, by the station's own class."""
    from fieldstation.station.project import open_project

    return open_project(place).load_config()
