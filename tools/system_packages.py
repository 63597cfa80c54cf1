#!/usr/bin/env python3
"""Install the Debian packages that tests need, or say the command: it runs before there is an environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))
from fieldstation.testing.programs import DEBIAN_PACKAGES, SOAK_PACKAGES, find

APT = ["apt-get", "install", "-y", "--no-install-recommends"]


def main() -> None:
    wanted = DEBIAN_PACKAGES | (SOAK_PACKAGES if "--soak" in sys.argv[1:] else {})
    missing = sorted({package for name, package in wanted.items() if find(name) is None})
    if not missing:
        return
    command = " ".join([*APT, *missing])
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing for the tests:", *missing, flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
        if subprocess.run([*APT, "-qq", *missing], env=environment, check=False).returncode == 0:
            return
    print(f"Some tests will fail for want of programs; install them with: sudo {command}", file=sys.stderr)


main()
