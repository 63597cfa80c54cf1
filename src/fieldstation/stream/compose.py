"""From the configuration to a running frame server."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path
from typing import Any

from fieldstation.core import plugins
from fieldstation.stream.acquisition import Acquisition
from fieldstation.stream.config import SIMULATED_HP_IO, HpIoConfig, ServerConfig, load_hp_io
from fieldstation.stream.errors import StreamError
from fieldstation.stream.hub import Hub
from fieldstation.stream.model import HpIo
from fieldstation.stream.probe import run_active
from fieldstation.stream.source import Source
from fieldstation.stream.sources.pff import check_data_dir
from fieldstation.stream.wire.codec import Encoder
from fieldstation.stream.wire.daqdata import SERVICE, DaqData
from fieldstation.stream.wire.metrics import serve_metrics
from fieldstation.stream.wire.server import GrpcServer

log = logging.getLogger(__name__)


def open_source(config: ServerConfig, request: HpIo) -> Source:
    """Return the source that a request asks for, by entry point name."""
    replays = config.replay_dir is not None and request.data_dir == config.replay_dir
    name = "simulated" if request.simulate else "replay" if replays else "acquisition"
    source: Source = plugins.load("sources", name)(request, config)
    return source


class StreamServer:
    """The service behind `fieldstation stream serve`."""

    name = "stream"

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        encoder = Encoder(config.name or socket.gethostname())
        self.hub = Hub(encoder.response, encoder.series)
        self.acquisition = Acquisition(
            self.hub,
            partial(open_source, config),
            min_interval_s=config.min_hp_io_update_interval_seconds,
            max_readers=config.max_concurrent_rpcs,
            check_data_dir=check_data_dir,
            run_active=partial(run_active, config.daq_process, config.daq_active_file),
        )
        servicer = DaqData(self.acquisition, encoder, config.every_mode_buffer)
        self._grpc = GrpcServer(config, [servicer.handler()], [SERVICE])
        self._owner: asyncio.Task[None] | None = None
        self._metrics: Any = None
        self.metrics_port: int | None = None

    @property
    def url(self) -> str:
        """Host and port to which clients connect."""
        return self._grpc.url

    async def start(self) -> None:
        """Bind, then start the source that the configuration names; a StreamError says why that is impossible."""
        await self._grpc.start()
        if self._config.metrics_port is not None:
            self._metrics, self.metrics_port = serve_metrics(self.acquisition, self._config.metrics_port)
            log.info("metrics at http://127.0.0.1:%d/metrics", self.metrics_port)
        # The acquisition's task group lives as long as we do; `run` re-raises what happens in it.
        self._owner = asyncio.get_running_loop().create_task(self.acquisition.run(), name="acquisition")
        await asyncio.sleep(0)
        request = self._first_request()
        if request is not None:
            problem = await self.acquisition.start_first(request)
            if problem is not None:
                raise StreamError(problem)

    def _first_request(self) -> HpIo | None:
        config = self._config
        if config.simulate:
            return hp_io(SIMULATED_HP_IO.model_copy(update={"update_interval_seconds": config.update_interval_seconds}))
        data_dir = config.replay_dir or config.data_dir
        if data_dir is not None:
            return HpIo(data_dir, config.update_interval_seconds)
        if config.init_from_default:
            path = Path(config.default_hp_io_config_file)
            return hp_io(load_hp_io(path) if path.exists() else SIMULATED_HP_IO)
        return None

    async def run(self) -> None:
        """Serve until cancelled."""
        assert self._owner is not None
        await asyncio.shield(self._owner)

    async def stop(self) -> None:
        """End streams with a status, then the source, then the server."""
        await self.acquisition.close()
        if self._owner is not None:
            self._owner.cancel()
        await self._grpc.stop(self._config.shutdown_grace_period)
        if self._metrics is not None:
            self._metrics.shutdown()
            self._metrics.server_close()

    def health(self) -> dict[str, object]:
        """Whether frames can be had, how many were read and how many clients there are."""
        health = self.acquisition.health()
        return {**health, "produced": self.hub.produced, "clients": len(self.hub.subscriptions)}


def hp_io(config: HpIoConfig) -> HpIo:
    """Return the request that a hp_io configuration describes."""
    return HpIo(
        data_dir=config.data_dir,
        update_interval_s=config.update_interval_seconds,
        force=config.force,
        simulate=config.simulate_daq,
        modules=frozenset(config.module_ids),
    )


class UbloxServer:
    """The service behind `fieldstation stream ublox serve`."""

    name = "ublox"

    def __init__(self, config: ServerConfig) -> None:
        # Imported here: frame servers need neither the serial line nor UBX.
        from fieldstation.stream.wire import ubloxcontrol

        self._config = config
        self._control = ubloxcontrol.UbloxControl()
        self._grpc = GrpcServer(config, [self._control.handler()], [ubloxcontrol.SERVICE])

    @property
    def url(self) -> str:
        """Host and port to which clients connect."""
        return self._grpc.url

    async def start(self) -> None:
        """Bind and listen."""
        await self._grpc.start()

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._grpc.wait()

    async def stop(self) -> None:
        """End streams, let go of the receiver, stop the server."""
        await self._control.close()
        await self._grpc.stop(self._config.shutdown_grace_period)

    def health(self) -> dict[str, object]:
        """It is well while it runs."""
        return {"ok": True}
