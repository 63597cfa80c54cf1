"""The source behind simulate_daq: simulated frames, and whatever of the server receives them, in one process."""

from __future__ import annotations

import asyncio
import time

from fieldstation.stream.config import ServerConfig
from fieldstation.stream.model import HpIo
from fieldstation.stream.sim.feeds import FileFeed, SocketFeed, feed_of
from fieldstation.stream.source import History, Publish, Source
from fieldstation.stream.sources.ingest import IngestSource
from fieldstation.stream.sources.pff import PffSource


class SimulatedSource:
    """Frames by the way that `simulation_mode` names: files (with or without status FIFO), sockets, or uploads."""

    def __init__(self, request: HpIo, config: ServerConfig) -> None:
        self._config = config
        self._request = request
        self._feed = feed_of(config, request.modules)
        self._receiver: Source | None = None  # None for uploads: they come in by the server's front door

    async def start(self, publish: Publish) -> None:
        """Begin a simulated run, and follow it."""
        await self._feed.prepare()
        self._receiver = self._receiver_of_feed()
        if self._receiver is not None:
            await self._receiver.start(publish)

    def _receiver_of_feed(self) -> Source | None:
        simulation = self._config.simulate_daq_cfg
        if isinstance(self._feed, FileFeed):
            request = HpIo(str(self._feed.root), self._request.update_interval_s, modules=self._request.modules)
            pipe = simulation.simulation_mode == "filesystem_pipe"
            return PffSource(request, status_pipe=self._config.read_status_pipe_name if pipe else None)
        if isinstance(self._feed, SocketFeed):
            products = list(dict.fromkeys((simulation.movie_type, simulation.ph_type)))
            ingest = self._config.acquisition_methods.uds.model_copy(update={"data_products": products})
            return IngestSource(self._request, ingest)
        return None

    async def run(self) -> None:
        """Deliver frames at the configured pace."""
        try:
            async with asyncio.TaskGroup() as group:
                if self._receiver is not None:
                    group.create_task(self._receiver.run())
                group.create_task(self._deliver())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _deliver(self) -> None:
        simulation = self._config.simulate_daq_cfg
        limit = int(simulation.strategies.get(simulation.simulation_mode, {}).get("frame_limit", -1))
        due = time.monotonic()
        steps = 0
        while limit < 0 or steps < limit:
            due = max(due + simulation.update_interval_seconds, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._feed.step()
            steps += 1

    async def stop(self) -> None:
        """Stop following, end the run, delete what it wrote."""
        if self._receiver is not None:
            await self._receiver.stop()
        await self._feed.close()

    def demand(self, readers: int, every: bool) -> None:
        """Pass it on."""
        if self._receiver is not None:
            self._receiver.demand(readers, every)

    def history(self) -> History | None:
        """The simulated run's files, if there are any."""
        return self._receiver.history() if self._receiver is not None else None

    def health(self) -> dict[str, object]:
        """As the receiving source is."""
        health = self._receiver.health() if self._receiver is not None else {"ok": True}
        return {**health, "simulated": True}


def simulated(request: HpIo, config: ServerConfig) -> Source:
    """Return the source behind simulate_daq."""
    return SimulatedSource(request, config)
