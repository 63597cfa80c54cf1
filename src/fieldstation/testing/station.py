"""For tests of stations: a line that can be cut or slowed, and a station as its users run it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from pathlib import Path
from typing import Any

from fieldstation.testing.processes import ServerProcess


class Line:
    """A TCP line to `port` that can be cut, held (half-open: nothing passes, nobody is told) and slowed."""

    def __init__(self, port: int, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.connections = 0
        self._target = port
        self._held = threading.Event()
        self._refusing = threading.Event()
        self._cut = threading.Event()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections; new ones are taken."""
        self._cut.set()
        time.sleep(0.05)
        self._cut.clear()

    def refuse(self, refusing: bool = True) -> None:
        """Break all connections and take no new ones, as when the server is down."""
        if refusing:
            self._refusing.set()
            self.cut()
        else:
            self._refusing.clear()

    def hold(self, holding: bool = True) -> None:
        """Swallow whatever is sent from now on, both ways; after that the connections of that time are broken."""
        if holding:
            self._held.set()
        else:
            self._held.clear()
            self.cut()

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self._listener.close()
        self._cut.set()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                near.close()
                continue
            self.connections += 1
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        waiting: deque[tuple[float, socket.socket, bytes]] = deque()
        with near, far, contextlib.suppress(OSError):
            while not self._cut.is_set():
                readable, _, _ = select.select([near, far], [], [], 0.01)
                for source in readable:
                    data = source.recv(65536)
                    if not data:
                        return
                    if not self._held.is_set():
                        waiting.append((time.monotonic() + self.delay_s, far if source is near else near, data))
                while waiting and waiting[0][0] <= time.monotonic():
                    _, target, data = waiting.popleft()
                    target.sendall(data)


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
        self._server.wait_ready(30)
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
