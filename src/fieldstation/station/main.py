"""`run()`: the documented entry of a station, and what surrounds it: environment, lock, the switch of versions."""

from __future__ import annotations

import os
import sys

from fieldstation.station.errors import NoStationError
from fieldstation.station.lock import with_automation_lock
from fieldstation.station.mainloop import Station
from fieldstation.station.place import STATION_DIR, Place, current_place, place_of, read_dotenv
from fieldstation.station.project import open_project
from fieldstation.station.updates.pointer import STARTED_BY_POINTER, remember_python, somebody_else_in_force


def run() -> None:
    """Run the station whose folder `FIELDSTATION_STATION_DIR` names (else the working directory), until SIGTERM.

    Raises AlreadyRunningError (a TimeoutError) when it runs already. When another version was switched to, this
    process becomes that version.
    """
    place = enter(current_place())
    if somebody_else_in_force(place) and os.environ.get(STARTED_BY_POINTER) != str(place.project_dir):
        # A unit or cron line that still names the old folder: the version in force starts in its place.
        os.execv(place.pointer, [str(place.pointer), "run"])  # noqa: S606 - our own script
    with with_automation_lock():
        remember_python(place)
        step = Station(place, open_project(place)).run()
    if step == "switch":
        sys.stdout.flush()
        # The same process goes on as the other version: systemd and cron see one station that never went away.
        os.execv(place.pointer, [str(place.pointer), "run"])  # noqa: S606 - our own script


def enter(place: Place) -> Place:
    """Take up the station's environment: `../.env`, then `config/.env` (which wins); what is set already stays."""
    os.environ[STATION_DIR] = str(place.project_dir)
    if not place.config_file.is_file():
        raise NoStationError(path=place.project_dir)
    for name, value in read_dotenv(place.project_dir).items():
        os.environ.setdefault(name, value)
    return place_of(place.project_dir)
