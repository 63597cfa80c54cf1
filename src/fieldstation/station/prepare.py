"""Make a version ready beside the running one: `python -m fieldstation.station.prepare`, config on stdin.

Ends with 0 when the version can be switched to; else the last line of its output is the reason.
"""

from __future__ import annotations

import sys

from fieldstation.core.errors import FieldstationError
from fieldstation.station.config import ForeignConfig
from fieldstation.station.main import enter
from fieldstation.station.place import current_place
from fieldstation.station.project import open_project
from fieldstation.station.updater import Updater


def main() -> int:
    """Download, check, install, configure, test."""
    try:
        place = enter(current_place())
        foreign = ForeignConfig.load_from_string(sys.stdin.read())
        Updater(open_project(place).load_config()).prepare(foreign)
    except (FieldstationError, OSError) as error:
        print(" ".join(str(error).split()))  # noqa: T201 - one line: the reason, for the process that started us
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
