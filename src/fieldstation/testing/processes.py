"""Run a server as a process of its own: wait for its `ready` line, stop it by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fieldstation.core.errors import FieldstationError


class ServerStartError(FieldstationError, AssertionError):
    """{command} did not get ready: {problem}. It wrote: {output}"""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that was free a moment ago. A server that can take port 0 and tell is the better way."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """A running command; `fieldstation` as its first word means the one of this environment.

    It has a session of its own, so that signals reach its children too and a Ctrl-C in the terminal does not.
    `output` is what it has written so far, both streams together.
    """

    def __init__(
        self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.command = [str(word) for word in command]
        if self.command[0] == "fieldstation":
            self.command[:1] = [sys.executable, "-m", "fieldstation"]
        self.url = ""
        self._lines: list[str] = []
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self.process.pid

    @property
    def output(self) -> str:
        """What the process has written so far."""
        return "".join(self._lines)

    def _read(self, stream: IO[str] | None) -> None:
        assert stream is not None
        with stream:
            for line in stream:
                self._lines.append(line)
                if stream is self.process.stdout and line.startswith("ready "):
                    self.url = line.removeprefix("ready ").strip()
                    self._ready.set()
        # The stream ends with the process; nobody needs to wait for `ready` any longer.
        if stream is self.process.stdout:
            self._ready.set()

    def wait_ready(self, deadline_s: float = 20.0) -> str:
        """Return the address of the `ready` line; ServerStartError when the process ends or the time is up first."""
        self._ready.wait(deadline_s)
        if not self.url:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.5)
            code = self.process.poll()
            problem = f"no `ready` line within {deadline_s:g} s" if code is None else f"it ended with exit code {code}"
            self.kill()
            raise ServerStartError(command=" ".join(self.command), problem=problem, output=self.output)
        return self.url

    def send(self, number: int) -> None:
        """Send a signal to the process and its children; nothing happens when they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, deadline_s: float = 15.0) -> int:
        """Wait for the end and return the exit code (negative: the signal's number)."""
        code = self.process.wait(deadline_s)
        for reader in self._readers:
            reader.join(1.0)
        return code

    def stop(self, deadline_s: float = 15.0) -> int:
        """Ask to end (SIGTERM), wait, and return the exit code; after `deadline_s` it is killed."""
        # Only the process itself is asked: to end its children is its own duty.
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
        try:
            code = self.wait(deadline_s)
        except subprocess.TimeoutExpired:
            code = self.kill()
        self.send(signal.SIGKILL)
        return code

    def kill(self) -> int:
        """Kill the process and its children, as a power cut would."""
        self.send(signal.SIGKILL)
        return self.wait()


@contextmanager
def running(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, deadline_s: float = 20.0
) -> Iterator[ServerProcess]:
    """Start a command that prints `ready <url>`, hand it over once it is ready, and stop it at the end."""
    server = ServerProcess(command, env=env, cwd=cwd)
    try:
        server.wait_ready(deadline_s)
        yield server
    finally:
        server.stop()
