"""`LifecycleManager`: start, check and tear down one procedure or backend in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fieldstation.station.agent import SUPERVISED
from fieldstation.station.child import END_NOW, PARAMETERS, check_signature, reference
from fieldstation.station.config import Config
from fieldstation.station.constants import SECONDS_BEYOND_DRAIN, SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN
from fieldstation.station.logger import Logger
from fieldstation.station.place import STATION_DIR, current_place

ProcedureEntrypoint = Callable[[Any, Logger], None]
BackendEntrypoint = Callable[[Any, Logger, threading.Event], None]


class LifecycleManager:
    """One process; code named as `module:function` is imported only there.

    A procedure ends by SIGTERM and is killed after 30 s. A backend is told by its `teardown_indicator` and is killed
    after its `max_drain_time` and 120 s more.
    """

    def __init__(
        self,
        config: Config,
        entrypoint: ProcedureEntrypoint | BackendEntrypoint | str,
        procedure_name: str,
        variant: Literal["procedure", "backend"],
        *,
        drain_s: float | None = None,
    ) -> None:
        if variant not in PARAMETERS:
            raise ValueError(f"a {variant!r} is neither a procedure nor a backend")
        if not isinstance(entrypoint, str):
            check_signature(entrypoint, procedure_name, variant)
        self.name = procedure_name
        self.variant = variant
        self.status: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.last_beat = 0.0
        self.started = 0.0
        self._config = config
        self._reference = entrypoint if isinstance(entrypoint, str) else reference(entrypoint)
        self._drain_s = drain_s if drain_s is not None else config.backend.max_drain_time if config.backend else 0
        self._logger = Logger(config, "lifecycle-manager")
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._buffer = b""

    @property
    def pid(self) -> int | None:
        """The process id, while a process is recorded."""
        return self._process.pid if self._process is not None else None

    def fileno(self) -> int:
        """Return the descriptor that is readable when the process has something to tell, or has ended."""
        return self._line.fileno() if self._line is not None else -1

    def start_procedure(self) -> None:
        """Start the process; RuntimeError when one is recorded already."""
        if self._process is not None:
            raise RuntimeError(f"{self.name} has been started already")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        environment = {
            # One arena: threads that mostly wait must not each keep freed memory for themselves.
            "MALLOC_ARENA_MAX": "1",
            **os.environ,
            SUPERVISED: os.environ.get(SUPERVISED, ""),
            STATION_DIR: str(current_place().project_dir),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "fieldstation.station.child", str(theirs.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env=environment,
        )
        theirs.close()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(self._order()).encode())
        self._process, self._line, self._buffer = process, ours, b""
        self.status, self.exit_code = {}, None
        self.started = self.last_beat = time.monotonic()
        self._logger.info(f"started {self.name} with the process id {process.pid}")

    def _order(self) -> dict[str, Any]:
        config_class = reference(type(self._config))
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        needs_main = any(text.startswith("__main__:") for text in (self._reference, config_class))
        return {
            "parent": os.getpid(),
            "name": self.name,
            "variant": self.variant,
            "entrypoint": self._reference,
            "config_class": config_class,
            "config": self._config.model_dump_json(),
            "path": [str(Path(entry).absolute()) for entry in sys.path],
            "main": main if needs_main else None,
            "grace_s": SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN,
        }

    def procedure_is_running(self) -> bool:
        """Say whether the procedure has been started; whether the process still lives is `check_procedure_status`."""
        return self._process is not None

    def check_procedure_status(self) -> None:
        """Log an error when the process has died, and forget it, so that it can be started again.

        RuntimeError when the procedure has not been started.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        self.pump()
        self.exit_code = self._process.poll()
        if self.exit_code is None:
            return
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        self._logger.error(f"{self.name} died unexpectedly with {how}")
        self._forget()

    def pump(self) -> None:
        """Take in what the process has told: signs of life and its status."""
        if self._line is None:
            return
        with contextlib.suppress(OSError):
            while data := self._line.recv(65536):
                self.last_beat = time.monotonic()
                self._buffer += data
                *lines, self._buffer = self._buffer.split(b"\n")
                for line in lines:
                    with contextlib.suppress(ValueError):
                        self.status |= json.loads(line).get("status", {})

    def has_ended(self) -> bool:
        """Say whether a recorded process is dead."""
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """End a hung process at once; the next check finds it dead."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask_to_end(self, *, drain: bool = True) -> None:
        """Ask the process to end, without waiting. A backend is told to drain, or by SIGUSR1 to end at once."""
        if self._process is None or self._line is None:
            return
        with contextlib.suppress(OSError):
            if self.variant == "procedure":
                self._process.send_signal(signal.SIGTERM)
            elif drain:
                self._line.send(b"teardown\n", socket.MSG_NOSIGNAL)
            else:
                self._process.send_signal(END_NOW)

    def deadline_s(self, *, drain: bool = True) -> float:
        """Return how long the process may take to end."""
        if self.variant == "backend" and drain:
            return self._drain_s + SECONDS_BEYOND_DRAIN
        return SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN

    def wait_ended(self, timeout_s: float) -> None:
        """Wait for the end that was asked for; kill the process when the time is over."""
        if self._process is None:
            return
        deadline = time.monotonic() + timeout_s
        # Read on while it ends: a process that drains reports, and must not find its line full.
        while self._process.poll() is None and time.monotonic() < deadline:
            self.pump()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)
        if self._process.poll() is None:
            self._logger.warning(f"{self.name} did not end within {timeout_s:g} s and is killed")
            self.kill()
        self.pump()
        self.exit_code = self._process.returncode
        self._logger.debug(f"{self.name} has ended")
        self._forget()

    def teardown(self) -> None:
        """End the process: ask, wait as long as is documented, kill."""
        self.ask_to_end()
        self.wait_ended(self.deadline_s())

    def _forget(self) -> None:
        self._process = None
        if self._line is not None:
            self._line.close()
            self._line = None
