"""The environment of a version, built by uv in its own folder, from the strictest list the project brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from fieldstation.station.errors import UpdateError

INSTALL_DEADLINE_S = 3600.0
TEST_DEADLINE_S = 1200.0


def find_uv() -> str:
    """Return the path of uv: the one installed beside us, else one on PATH."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
        if found is None:
            raise UpdateError(problem="uv is not installed; pip install uv") from None
        return found


def build(directory: Path) -> None:
    """Make `.venv` anew and install what the project asks for.

    In this order: `pdm.lock`, exactly, with its hashes; `requirements.txt`, with hashes when it has them; the
    dependencies of pyproject.toml. A folder `wheels` in the release is looked into first, and
    nowhere else when it holds a file `COMPLETE`.
    """
    uv = find_uv()
    # Relocatable, so that no path in it breaks when the version is moved to another root.
    _command([uv, "venv", "-q", "--clear", "--relocatable", "--python", sys.executable, ".venv"], directory)
    arguments = [uv, "pip", "install", "-q", "--python", ".venv/bin/python"]
    wheels = directory / "wheels"
    if wheels.is_dir():
        arguments += ["--find-links", str(wheels)]
        if (wheels / "COMPLETE").exists():
            arguments += ["--no-index"]
    lock, requirements = directory / "pdm.lock", directory / "requirements.txt"
    if lock.is_file():
        written = directory / ".venv" / "pdm-requirements.txt"
        written.write_text(requirements_of(tomllib.loads(lock.read_text())))
        arguments += ["--no-deps", "--require-hashes", "-r", str(written)]
    elif requirements.is_file():
        hashed = "--hash=" in requirements.read_text()
        arguments += ["--require-hashes", "-r", "requirements.txt"] if hashed else ["-r", "requirements.txt"]
    else:
        arguments += ["-r", "pyproject.toml"]
    _command(arguments, directory)


def requirements_of(lock: dict[str, Any]) -> str:
    """Return the packages of a `pdm.lock` as requirement lines with their hashes.

    Format: https://pdm-project.org/latest/usage/lockfile/ (packages of all groups, as `pdm sync` installs them).
    """
    lines = []
    for package in lock.get("package", []):
        if "url" in package or "path" in package or "git" in package:
            raise UpdateError(problem=f"pdm.lock: {package['name']} does not come from an index, and has no hash")
        extras = f"[{','.join(package['extras'])}]" if package.get("extras") else ""
        marker = package.get("marker")
        hashes = sorted({file["hash"] for file in package.get("files", []) if file.get("hash")})
        if not hashes:
            raise UpdateError(problem=f"pdm.lock has no hashes for {package['name']}")
        line = f"{package['name']}{extras}=={package['version']}" + (f" ; {marker}" if marker else "")
        lines.append(" \\\n    ".join([line, *(f"--hash={value}" for value in hashes)]))
    return "\n".join(lines) + "\n"


def run_tests(directory: Path) -> None:
    """Run the project's tests marked `version_change` in its own environment; UpdateError when they fail."""
    environment = {**os.environ, "FIELDSTATION_STATION_DIR": str(directory)}
    _command(
        [str(directory / ".venv" / "bin" / "python"), "-m", "pytest", "-q", "-m", "version_change", "tests/"],
        directory,
        environment=environment,
        deadline_s=TEST_DEADLINE_S,
    )


def _command(
    arguments: list[str], directory: Path, *, environment: dict[str, str] | None = None,
    deadline_s: float = INSTALL_DEADLINE_S,
) -> None:  # fmt: skip
    shown = " ".join(arguments[:4])
    try:
        result = subprocess.run(
            arguments, cwd=directory, env=environment, capture_output=True, timeout=deadline_s, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UpdateError(problem=f"`{shown} ...` took longer than {deadline_s:g} s") from error
    except OSError as error:
        raise UpdateError(problem=f"`{shown} ...` could not be started: {error}") from error
    if result.returncode != 0:
        said = (result.stdout + b"\n" + result.stderr).decode("utf-8", "replace").strip()
        raise UpdateError(problem=f"`{shown} ...` failed with exit code {result.returncode}: {said[-1500:]}")
