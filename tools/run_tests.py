"""Run the tests four at a time, since they mostly wait; what failed runs once more, alone, and is named loudly.

A test that needs the second try is a bug of ours (usually a deadline that a busy machine breaks): it is listed, so that
it can be found, and a test that fails twice fails the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = [sys.executable, "-m", "pytest", "-q", "--timeout", "180"]


def main() -> None:
    """Exit as pytest would."""
    with tempfile.TemporaryDirectory() as folder:
        failures = Path(folder) / "failed"
        environment = {**os.environ, "FIELDSTATION_FAILED_TESTS": str(failures)}
        first = subprocess.run(
            [*COMMON, "-n", "4", "--dist", "loadfile", "--no-loadscope-reorder", "-m", "not soak", *sys.argv[1:]],
            env=environment,
            check=False,
        )
        names = failures.read_text().splitlines() if failures.exists() else []
    if first.returncode != 1 or not 0 < len(names) <= 10:
        sys.exit(first.returncode)
    print(f"\n{len(names)} failed beside others; each runs again, alone.\n", flush=True)
    again = subprocess.run([*COMMON, *names], check=False)
    if again.returncode == 0:
        print("\nPassed only at the second try, alone; each is a bug to be found:")
        for name in names:
            print(f"  {name}")
    sys.exit(again.returncode)


main()
