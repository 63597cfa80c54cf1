"""The CLI pointer, `<root>/<name>-cli.sh`: the script that cron and systemd call, whichever version is in force."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from fieldstation.core.files import write_file
from fieldstation.station.place import Place
from fieldstation.station.updates.trial import MAX_STARTS
from fieldstation.station.version import Version

STARTED_BY_POINTER = "FIELDSTATION_STATION_POINTED"  # its value: the folder that the pointer chose
_MARK = "# target: "

_PLAIN = """\
#!/bin/bash
# Starts the version in force. Written by the station's updater in one step; do not edit.
# target: {target}
set -o errexit
export FIELDSTATION_STATION_DIR={directory} FIELDSTATION_STATION_POINTED={directory}
exec {python} -m fieldstation station "${{@:-status}}"
"""

_ON_TRIAL = """\
#!/bin/bash
# Starts version {version}, which is on trial. When it was started {starts} times and has not proved itself, the version
# before it starts again and rolls back. Written by the station's updater in one step; do not edit.
# target: {target}
set -o errexit
directory={directory}
python={python}
case "${{1:-}}" in
start|run)
    count=$(( $(cat {counter} 2>/dev/null || echo 0) + 1 ))
    echo "$count" > {counter}
    if [ ! -x "$python" ] || [ "$count" -gt {starts} ]; then
        directory={fallback}
        python={fallback_python}
    fi
    ;;
esac
export FIELDSTATION_STATION_DIR="$directory" FIELDSTATION_STATION_POINTED="$directory"
exec "$python" -m fieldstation station "${{@:-status}}"
"""


def python_of(directory: Path) -> Path:
    """Return the interpreter of a version: of its own environment, or what ran it when it has none (development)."""
    own = directory / ".venv" / "bin" / "python"
    if own.exists():
        return own
    with contextlib.suppress(OSError):
        return Path(_outside(directory.parent).read_text())
    return Path(sys.executable)


def remember_python(place: Place) -> None:
    """Note what runs a version without an environment of its own.

    A later version that rolls back runs in its own environment, which is removed once it is not in force any more.
    """
    ours = Path(sys.executable)
    note = _outside(place.root_dir)
    if not ours.is_relative_to(place.root_dir) and (not note.exists() or note.read_text() != str(ours)):
        write_file(note, str(ours))


def _outside(root: Path) -> Path:
    return root / ".python"


def _counter(place: Place) -> Path:
    return place.root_dir / ".trial-starts"


def starts_counted(place: Place) -> int:
    """Return how often the pointer started the version that is on trial."""
    try:
        return int(_counter(place).read_text())
    except (OSError, ValueError):
        return 0


def point_to(
    place: Place, version: Version, *, fallback: Path | None = None, directory: str | Path | None = None
) -> Path:
    """Let the pointer start `version` from now on; with `fallback` on trial. Returns the pointer's path."""
    target = Path(directory) if directory is not None else place.root_dir / version.as_identifier()
    words = {
        "directory": shlex.quote(str(target)),
        "python": shlex.quote(str(python_of(target))),
        "version": version.as_identifier(),
        "starts": MAX_STARTS,
        "target": json.dumps({"directory": str(target), "instead_of": _superseded(place, target, fallback)}),
    }
    place.root_dir.mkdir(parents=True, exist_ok=True)
    _counter(place).unlink(missing_ok=True)
    if fallback is None:
        text = _PLAIN.format(**words)
    else:
        text = _ON_TRIAL.format(
            counter=shlex.quote(str(_counter(place))),
            fallback=shlex.quote(str(fallback)),
            fallback_python=shlex.quote(str(python_of(fallback))),
            **words,
        )
    write_file(place.pointer, text, mode=0o755)
    return place.pointer


def target_of(place: Place) -> dict[str, Any]:
    """Return what the pointer starts: its `directory`, and the folders it stands `instead_of`; empty without one."""
    with contextlib.suppress(OSError, ValueError):
        for line in place.pointer.read_text().splitlines():
            if line.startswith(_MARK):
                return dict(json.loads(line.removeprefix(_MARK)))
    return {}


def _superseded(place: Place, target: Path, fallback: Path | None) -> list[str]:
    old = target_of(place)
    folders = [*old.get("instead_of", []), old.get("directory"), str(fallback) if fallback else None]
    if place.project_dir != target:
        folders.append(str(place.project_dir))
    return sorted({folder for folder in folders if folder and folder != str(target)})


def somebody_else_in_force(place: Place) -> bool:
    """Say whether the pointer starts another version in place of this one, so that a start of this one is a mistake."""
    target = target_of(place)
    return str(place.project_dir) in target.get("instead_of", []) and place.pointer.is_file()
