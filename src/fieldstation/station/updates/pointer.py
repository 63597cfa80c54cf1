"""The CLI pointer, `<root>/<name>-cli.sh`: the script that cron and systemd call, whichever version is in force."""

from __future__ import annotations

import shlex
from pathlib import Path

from fieldstation.station.durable import write_file
from fieldstation.station.place import Place
from fieldstation.station.updates.trial import MAX_STARTS
from fieldstation.station.version import Version

_PLAIN = """\
#!/bin/bash
# Starts the version in force. Written by the station's updater in one step; do not edit.
set -o errexit
export FIELDSTATION_STATION_DIR={directory}
exec {python} -m fieldstation station "${{@:-status}}"
"""

_ON_TRIAL = """\
#!/bin/bash
# Starts version {version}, which is on trial. When it was started {starts} times and has not proved itself, the version
# before it starts again and rolls back. Written by the station's updater in one step; do not edit.
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
export FIELDSTATION_STATION_DIR="$directory"
exec "$python" -m fieldstation station "${{@:-status}}"
"""


def python_of(directory: Path) -> Path:
    """Return the interpreter of a version; our own when the project has no environment (development)."""
    import sys

    own = directory / ".venv" / "bin" / "python"
    return own if own.exists() else Path(sys.executable)


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
    }
    counter = place.root_dir / ".trial-starts"
    counter.unlink(missing_ok=True)
    if fallback is None:
        text = _PLAIN.format(**words)
    else:
        text = _ON_TRIAL.format(
            counter=shlex.quote(str(counter)),
            fallback=shlex.quote(str(fallback)),
            fallback_python=shlex.quote(str(python_of(fallback))),
            **words,
        )
    write_file(place.pointer, text, mode=0o755)
    return place.pointer
