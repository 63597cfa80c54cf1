"""The source behind simulate_daq: a simulated Hashpipe and the file source that follows it, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from fieldstation.stream.config import ServerConfig
from fieldstation.stream.model import HpIo
from fieldstation.stream.sim.hashpipe import SimulatedHashpipe, simulated_hashpipe
from fieldstation.stream.source import History, Publish, Source
from fieldstation.stream.sources.pff import PffSource


class SimulatedSource:
    """A simulated Hashpipe and the file source that follows it, in one process."""

    def __init__(self, request: HpIo, config: ServerConfig) -> None:
        self._config = config.simulate_daq_cfg
        self._request = request
        self._temporary: str | None = None
        self._hashpipe: SimulatedHashpipe | None = None
        self._files: PffSource | None = None

    async def start(self, publish: Publish) -> None:
        """Begin a run in the configured or a temporary directory, and follow it."""
        files = self._config.filesystem_cfg
        if files.sim_data_dir:
            root = Path(files.sim_data_dir)
        else:
            self._temporary = tempfile.mkdtemp(prefix="fieldstation-simulation-")
            root = Path(self._temporary)
        self._hashpipe = simulated_hashpipe(root, self._config)
        await asyncio.to_thread(self._begin, self._hashpipe)
        request = HpIo(str(root), self._request.update_interval_s, modules=self._request.modules)
        self._files = PffSource(request)
        await self._files.start(publish)

    @staticmethod
    def _begin(hashpipe: SimulatedHashpipe) -> None:
        hashpipe.open()
        hashpipe.step()

    async def run(self) -> None:
        """Write frames at the configured pace."""
        assert self._files is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(self._files.run())
            group.create_task(self._write())

    async def _write(self) -> None:
        assert self._hashpipe is not None
        pause_s = self._config.update_interval_seconds
        due = time.monotonic()
        steps = 0
        while True:
            due = max(due + pause_s, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._hashpipe.step()
            steps += 1
            if steps % 1000 == 0:
                self._hashpipe.prune()

    async def stop(self) -> None:
        """Stop following, end the run, remove a temporary directory."""
        if self._files is not None:
            await self._files.stop()
        if self._hashpipe is not None:
            self._hashpipe.close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)

    def demand(self, readers: int, every: bool) -> None:
        """Pass it on."""
        if self._files is not None:
            self._files.demand(readers, every)

    def history(self) -> History | None:
        """The simulated run's files."""
        return self._files.history() if self._files is not None else None

    def health(self) -> dict[str, object]:
        """As the file source is."""
        health = self._files.health() if self._files is not None else {"ok": False}
        return {**health, "simulated": True}


def simulated(request: HpIo, config: ServerConfig) -> Source:
    """Return the source behind simulate_daq."""
    return SimulatedSource(request, config)
