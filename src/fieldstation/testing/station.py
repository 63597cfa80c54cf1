"""For tests of stations: a station as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from fieldstation.testing.processes import ServerProcess


class StationProcess:
    """A station in a folder, run as a child by its command line. Its version is 1.0.0."""

    def __init__(self, folder: Path, config: dict[str, Any], procedures: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.environment = {"HOME": str(folder.parent), "FIELDSTATION_STATION_DIR": str(folder)}
        self._server: ServerProcess | None = None
        (folder / "config").mkdir(parents=True, exist_ok=True)
        table = "".join(f'{name} = "{target}"\n' for name, target in (procedures or {}).items())
        (folder / "pyproject.toml").write_text(
            '[project]\nname = "sut"\nversion = "1.0.0"\n[tool.fieldstation.station.procedures]\n' + table
        )
        self.write_config(config)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write `config/config.json`."""
        (self.folder / "config" / "config.json").write_text(json.dumps(config))

    def start(self) -> StationProcess:
        """Run it and wait until it says `ready`."""
        command = ["fieldstation", "station", "run"]
        self._server = ServerProcess(command, env=self.environment, cwd=self.folder)
        self._server.wait_ready(60)
        return self

    @property
    def server(self) -> ServerProcess:
        """The supervisor: its process id, its output, ways to end it."""
        assert self._server is not None
        return self._server

    @property
    def running(self) -> bool:
        """Whether the supervisor has been started and has not ended."""
        return self._server is not None and self._server.process.poll() is None

    def snapshot(self) -> dict[str, Any]:
        """Return what /health tells."""
        try:
            with urllib.request.urlopen(self.server.url + "/health", timeout=5) as response:  # noqa: S310 - loopback
                return dict(json.load(response))
        except urllib.error.HTTPError as error:  # 503 says that something is wrong; the body says what
            return dict(json.load(error))

    def process(self, name: str) -> dict[str, Any]:
        """Return the status of one process."""
        return next(dict(p) for p in self.snapshot()["processes"] if p["name"] == name)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `fieldstation station ...` in the station's folder."""
        return subprocess.run(
            [sys.executable, "-m", "fieldstation", "station", *arguments],
            env={**os.environ, **self.environment}, cwd=self.folder, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def stop(self, deadline_s: float = 30.0) -> int:
        """End it as `systemctl stop` would, and return the exit code."""
        return self.server.stop(deadline_s) if self._server is not None else 0
