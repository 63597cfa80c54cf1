"""Going back by hand to the version or the config that was in force before."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fieldstation.core.errors import FieldstationError
from fieldstation.core.files import write_file
from fieldstation.station.place import Place, place_of
from fieldstation.station.toggle import MainloopToggle
from fieldstation.station.updater import previous_version
from fieldstation.station.updates.pointer import point_to
from fieldstation.station.updates.trial import TrialFile
from fieldstation.station.version import Version


@dataclass(frozen=True, slots=True)
class GoneBack:
    """What was done, and how to start the station again."""

    sentence: str
    start: Callable[[], None]


def go_back(place: Place, *, only_config: bool, stop: Callable[[], None]) -> GoneBack:
    """Stop the station and go back; FieldstationError when there is nothing to go back to (it then runs on)."""
    if only_config:
        return _config(place, stop)
    trial = TrialFile(place.data_dir).load()
    directory = previous_version(place.data_dir)
    if trial is not None and trial.kind == "version":
        directory = Path(trial.from_dir)
    if directory is None or not directory.is_dir():
        raise FieldstationError("There is no version before this one to go back to.")
    before = place_of(directory)
    stop()
    TrialFile(place.data_dir).clear()
    point_to(place, Version(before.version), directory=directory)
    write_file(place.data_dir / "previous-version", str(place.project_dir) + "\n")
    pointer = str(place.pointer)
    return GoneBack(
        f"version {before.version} in {directory} is in force again",
        lambda: _start(pointer),
    )


def _config(place: Place, stop: Callable[[], None]) -> GoneBack:
    path = place.data_dir / "previous-config.json"
    if not path.is_file():
        raise FieldstationError("There is no config before this one to go back to.")
    text = path.read_text()
    revision = json.loads(text)["general"]["config_revision"]
    stop()
    now = place.config_file.read_text()
    write_file(place.config_file, text, mode=0o600)
    write_file(path, now, mode=0o600)
    return GoneBack(f"the config of revision {revision} is in force again", MainloopToggle.start_mainloop)


def _start(pointer: str) -> None:
    subprocess.run([pointer, "start"], check=False)
