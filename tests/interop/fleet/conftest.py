"""Published icefarm releases, each in an environment of its own, against our control and worker."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fieldstation.testing import ServerProcess, free_port, running, wait_for

ROOT = Path(__file__).parents[3]
RELEASES = ("0.1.16", "0.1.15")
BITSTREAM_BYTES = 104_090


@dataclass(frozen=True)
class Published:
    version: str
    python: Path

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        script = Path(__file__).with_name("published_client.py")
        return subprocess.Popen(
            [self.python, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp")},
        )

    def run(self, *arguments: str | Path) -> dict[str, Any]:
        process = self.start(*arguments)
        try:
            out, errors = process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            pytest.fail(f"icefarm {self.version} did not end. It wrote:\n{out}\n{errors}")
        assert process.returncode == 0, errors
        report: dict[str, Any] = json.loads(out.splitlines()[-1])
        return report


def environment(version: str) -> Path:
    """Build the environment once, outside the tree; returns its interpreter."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (
        cache / "fieldstation" / "interop" / f"icefarm-{version}-py{sys.version_info.major}{sys.version_info.minor}"
    )
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = Path(sys.executable).with_name("uv")
        for command in (
            [uv, "venv", "-q", "--clear", folder, "--python", sys.executable],
            [uv, "pip", "install", "-q", "--python", python, f"icefarm=={version}"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode != 0:
                pytest.fail(f"{' '.join(map(str, command))} failed: {done.stderr}")
        (folder / "complete").touch()
    return python


@pytest.fixture(scope="session", params=RELEASES)
def published(request: pytest.FixtureRequest) -> Published:
    return Published(request.param, environment(request.param))


@pytest.fixture(scope="session")
def circuits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The real circuits where they are at hand, otherwise files of the same size."""
    named = os.environ.get("FIELDSTATION_CIRCUITS")
    folder = Path(named) if named else ROOT.parent / "shared/data/icefarm"
    if found := sorted(folder.glob("*.bin")):
        return found
    folder = tmp_path_factory.mktemp("circuits")
    for number in range(3):
        (folder / f"circuit-{number}.bin").write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    return sorted(folder.glob("*.bin"))


class Fleet:
    """A control on a port that it keeps, and a worker with three boards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start_control(self) -> ServerProcess:
        database = f"sqlite:///{self.folder / 'fleet.db'}"
        command = ["fieldstation", "fleet", "control", "--port", str(self.port), "--database", database]
        self.control = ServerProcess(command, cwd=self.folder)
        self.control.wait_ready(40)
        return self.control


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    fleet.start_control()
    worker = ("fieldstation", "fleet", "worker", "--control", fleet.url, "--name", "bench", "--port", "0")
    try:
        with running(*worker, "--simulate", "3", "--dir", fleet.folder / "worker", cwd=fleet.folder, deadline_s=40):
            yield fleet
    finally:
        fleet.control.stop()


def available(url: str) -> int:
    from urllib.request import urlopen

    with urlopen(f"{url}/available", timeout=5) as answer:
        return int(json.load(answer)["amount"])


@pytest.fixture
def all_free(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet with every board free, before and after."""
    wait_for(lambda: available(fleet.url) == 3, 30)
    yield fleet
    wait_for(lambda: available(fleet.url) == 3, 30)
