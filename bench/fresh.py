"""A fresh machine: an empty directory, a clone, an empty home; and then the commands of the README.

What this repository holds is cloned, so commit first. The second command, `make test`, takes its minutes: it is run too
when BENCH_FRESH_TEST is set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import Row, main

ROOT = Path(__file__).parents[1]
# How this machine reaches a package index is its own business.
KEPT = ("PIP_", "UV_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def surroundings(home: Path) -> dict[str, str]:
    """Return what a new user's shell has: no environment of ours, no cache."""
    kept = {name: value for name, value in os.environ.items() if name.upper().startswith(KEPT)}
    path = [part for part in os.environ["PATH"].split(":") if not part.startswith(str(ROOT))]
    return {**kept, "HOME": str(home), "PATH": ":".join(path), "LANG": "C.UTF-8", "PYTHON": base_python()}


def base_python() -> str:
    return str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")


def timed(folder: Path, home: Path, *words: str) -> float:
    began = time.monotonic()
    environment = surroundings(home)
    command = ["make", f"PYTHON={environment['PYTHON']}", *words]
    with (home / f"{words[0]}.log").open("w") as log:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise SystemExit(
            f"make {words[0]} ended with {done.returncode}:\n{(home / f'{words[0]}.log').read_text()[-3000:]}"
        )
    return time.monotonic() - began


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder, home = Path(name) / "fieldstation", Path(name) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
        first, again = timed(folder, home, "demo"), timed(folder, home, "demo")
        rows = [
            Row("`make demo` in an empty directory, with its set-up", f"{first:.0f} s", ""),
            Row("`make demo` again", f"{again:.0f} s", "", promise="< 60 s"),
        ]
        if os.environ.get("BENCH_FRESH_TEST"):
            rows.append(Row("`make test`", f"{timed(folder, home, 'test') / 60:.1f} min", ""))
    return rows


if __name__ == "__main__":
    main("fresh", measure)
