"""Start node processes, keep them running, stop them together."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from fieldstation.core.children import die_with_parent, end
from fieldstation.core.retry import Backoff
from fieldstation.pipeline.state import ReplicaState

log = logging.getLogger(__name__)

READY_S = 30.0
STOP_S = 12.0  # a node drains for eight seconds and then closes
STEADY_S = 10.0  # a process that ran so long starts its back-off anew


class Replica:
    """One node process. It is restarted with growing pauses whenever it ends."""

    def __init__(
        self,
        state: ReplicaState,
        command: list[str],
        folder: Path,
        config_folder: Path,
        log_file: Path,
        changed: Callable[[], None],
    ) -> None:
        self.state = state
        self.name = f"{state.process}-{state.number}"
        self._command = command
        self._folder = folder
        self._config_folder = config_folder
        self._log_file = log_file
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Keep the process alive until cancelled."""
        backoff = Backoff(0.2, 10.0)
        failures = 0
        while True:
            started = asyncio.get_running_loop().time()
            await self._once()
            if asyncio.get_running_loop().time() - started > STEADY_S:
                failures = 0
            self.state.restarts += 1
            self._set("restarting")
            await asyncio.sleep(backoff.delay(failures))
            failures += 1

    async def _once(self) -> None:
        environment = {
            **os.environ,
            "KAI_APP_CONFIG_PATH": str(self._config_folder),
            "PYTHONUNBUFFERED": "1",
        }
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as errors:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    cwd=self._folder,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=errors,
                    preexec_fn=die_with_parent,
                )
            except OSError as error:
                log.error("%s cannot be started: %s", self.name, error)
                return
            self.state.pid = self._process.pid
            self._set("starting")
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                text = line.decode(errors="replace").strip()
                if text.startswith("ready"):
                    self.state.url = text.partition(" ")[2]
                    self._set("running")
                    self.ready.set()
                else:
                    errors.write(line)
                    errors.flush()
        code = await self._process.wait()
        log.error("%s ended with code %s; see %s", self.name, code, self._log_file)

    async def stop(self) -> None:
        """SIGTERM, wait for the drain, SIGKILL if it does not end."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if not await end(process, STOP_S):
            log.error("%s did not stop within %g s and was killed", self.name, STOP_S)
        self._set("stopped")

    def _set(self, state: str) -> None:
        self.state.state = state
        self._changed()
