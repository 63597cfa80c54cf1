"""For tests of stations: a real broker, a line that can be cut or slowed, and a station as its users run it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fieldstation.core.errors import FieldstationError


class MissingProgramError(FieldstationError):
    """{program} is not installed here; install it with: {command}"""


def free_port() -> int:
    """Return a loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, deadline_s: float = 15.0) -> Any:
    """Wait until `condition()` is true and return its value; AssertionError at the deadline."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {deadline_s} s for {what}"
        time.sleep(0.02)
    return value


class Broker:
    """mosquitto as a child process on a free loopback port; `kill` and `start` again keep port and folder."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true\nmax_queued_messages 0") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"user root\nlistener {self.port} 127.0.0.1\n{settings}\n")
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        """Start it and wait until it answers."""
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise MissingProgramError(program="mosquitto", command="apt-get install -y mosquitto")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._config)], stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers, "mosquitto")
        return self

    def kill(self) -> None:
        """End it at once; sessions and retained messages are lost unless `settings` keep them."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False


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
    """A station in a folder, run as a child by its command line."""

    def __init__(self, folder: Path, config: dict[str, Any], procedures: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._process: subprocess.Popen[str] | None = None
        self.environment = {**os.environ, "HOME": str(folder.parent), "FIELDSTATION_STATION_DIR": str(folder)}
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
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fieldstation", "station", "run"],
            env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ready "):
                break
        else:
            raise AssertionError(f"the station ended with {self._process.wait()}")
        # What it prints from now on must not fill the pipe.
        threading.Thread(target=self._process.stdout.read, daemon=True).start()
        return self

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    def status(self) -> dict[str, Any]:
        """Return what `station status --json` prints."""
        result = self.command("status", "--json")
        return dict(json.loads(result.stdout))

    def process(self, name: str) -> dict[str, Any]:
        """Return the status of one process."""
        return next(dict(p) for p in self.status()["processes"] if p["name"] == name)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `fieldstation station ...` in the station's folder."""
        return subprocess.run(
            [sys.executable, "-m", "fieldstation", "station", *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the supervisor, or to everything it started."""
        (os.killpg if group else os.kill)(self.pid, number)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for its end and return the exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self, timeout_s: float = 30.0) -> int:
        """End it as `systemctl stop` would, and return the exit code."""
        if self._process is None or self._process.poll() is not None:
            return self._process.returncode if self._process else 0
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill_all(self) -> None:
        """End whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
