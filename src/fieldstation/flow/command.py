"""Run one command: no shell, a time-out, bounded output, nothing left behind. Standard library only."""

from __future__ import annotations

import fnmatch
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from fieldstation.flow.errors import CommandRefusedError

KEEP_BYTES = 64 * 1024  # of the beginning and of the end of the output
GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. `exit_code` is negative for a signal; `dropped_bytes` were cut out of the middle."""

    exit_code: int
    output: str
    dropped_bytes: int
    duration_s: float
    timed_out: bool = False
    stopped: bool = False

    @property
    def ok(self) -> bool:
        """True when it ended by itself with exit code 0."""
        return self.exit_code == 0 and not self.timed_out and not self.stopped

    def as_json(self) -> dict[str, Any]:
        """Return it for an artifact or an audit."""
        return asdict(self)


def check_allowed(arguments: Sequence[str], allow: Sequence[str]) -> None:
    """Raise CommandRefusedError when an allow-list is set and no pattern of it (`ls *`) matches the command."""
    command = shlex.join(arguments)
    if allow and not any(fnmatch.fnmatchcase(command, pattern) for pattern in allow):
        raise CommandRefusedError(command=command[:200], problem="the allow-list of this worker does not name it")


def run_command(
    arguments: Sequence[str],
    *,
    timeout_s: float = 3600.0,
    env: Mapping[str, str] | None = None,
    on_output: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    grace_s: float = GRACE_S,
) -> Result:
    """Run it in the home folder with nothing on its input, standard error joined to the output.

    After `timeout_s`, or when `stop` is set, it and everything it started is asked to end (SIGTERM) and killed
    `grace_s` later. A program that cannot be started is CommandRefusedError.
    """
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=Path.home(),
            env=dict(env) if env is not None else None,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise CommandRefusedError(command=shlex.join(arguments)[:200], problem=problem) from error
    kept = _Kept(on_output)
    assert process.stdout is not None
    reader = threading.Thread(target=kept.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        timed_out, stopped = _wait(process, started + timeout_s, stop)
    finally:
        _end(process, grace_s)
    reader.join(grace_s)
    return Result(
        exit_code=process.returncode,
        output=kept.text(),
        dropped_bytes=kept.dropped,
        duration_s=round(time.monotonic() - started, 3),
        timed_out=timed_out,
        stopped=stopped,
    )


def _wait(process: subprocess.Popen[bytes], deadline: float, stop: threading.Event | None) -> tuple[bool, bool]:
    while True:
        try:
            process.wait(0.1 if stop is not None else max(0.0, min(deadline - time.monotonic(), 3600.0)))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                return True, False
            if stop is not None and stop.is_set():
                return False, True
        else:
            return False, False


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    # The whole group: what the command started in the background goes too.
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if process.poll() is None:
            _signal(process.pid, number)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
    _signal(process.pid, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


class _Kept:
    """The beginning and the end of what a command prints; a gigabyte in between costs no memory."""

    def __init__(self, on_output: Callable[[str], None] | None) -> None:
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._on_output = on_output
        self.dropped = 0

    def read(self, stream: IO[bytes]) -> None:
        with stream:
            while data := os.read(stream.fileno(), 65536):
                if self._on_output is not None and not self._tail:
                    self._on_output(data.decode("utf-8", "replace"))
                self._keep(data)

    def _keep(self, data: bytes) -> None:
        room = KEEP_BYTES - len(self._head)
        self._head += data[:room]
        if rest := data[room:]:
            self._tail.append(rest)
            self._tail_size += len(rest)
        while self._tail and self._tail_size - len(self._tail[0]) >= KEEP_BYTES:
            gone = self._tail.popleft()
            self._tail_size -= len(gone)
            self.dropped += len(gone)

    def text(self) -> str:
        tail = b"".join(self._tail)
        extra = max(0, len(tail) - KEEP_BYTES)
        self.dropped += extra
        gap = f"\n... {self.dropped} bytes left out ...\n".encode() if self.dropped else b""
        return (bytes(self._head) + gap + tail[extra:]).decode("utf-8", "replace")
