"""The ways by which simulated frames reach a server, one for each `simulation_mode`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

import grpc

from fieldstation.stream.config import ServerConfig, SimulationConfig
from fieldstation.stream.errors import StreamError
from fieldstation.stream.model import Frame, Product
from fieldstation.stream.pff import format_frame
from fieldstation.stream.sim.cameras import Cameras, archives_of
from fieldstation.stream.sim.hashpipe import SimulatedHashpipe, simulated_hashpipe
from fieldstation.stream.wire.codec import encode_image, field

PIPE_MESSAGE_BYTES = 10


class Feed(Protocol):
    """Delivers frames. `prepare` before the server listens for them, `step` for each round, `close` at the end."""

    async def prepare(self) -> None: ...  # noqa: D102 - a protocol: the name says it
    async def step(self) -> None: ...  # noqa: D102 - a protocol: the name says it
    async def close(self) -> None: ...  # noqa: D102 - a protocol: the name says it


class FileFeed:
    """Writes a run directory, marks it as active, and (with `pipe`) tells the status FIFO of each file that grew."""

    def __init__(self, config: SimulationConfig, pipe: str | None) -> None:
        self._config = config
        self._pipe = pipe
        self._temporary: str | None = None
        self._hashpipe: SimulatedHashpipe | None = None
        self._marks: list[Path] = []
        self._fifos: dict[Path, int] = {}
        self._steps = 0
        self.root = Path()

    async def prepare(self) -> None:
        """Begin the run in the configured or a temporary directory."""
        await asyncio.to_thread(self._begin)

    def _begin(self) -> None:
        files = self._config.filesystem_cfg
        if not files.sim_data_dir:
            self._temporary = tempfile.mkdtemp(prefix="fieldstation-simulation-")
        self.root = Path(self._temporary or files.sim_data_dir)
        self._hashpipe = simulated_hashpipe(self.root, self._config)
        self._hashpipe.open()
        for module_id in self._config.sim_module_ids:
            self._marks.append(self.root / files.daq_active_file.format(module_id=module_id))
            if self._pipe is not None:
                fifo = self._hashpipe.writer(module_id).folder / self._pipe
                if not fifo.is_fifo():
                    os.mkfifo(fifo)
                self._fifos[fifo] = -1
        for mark in self._marks:
            mark.touch()
        self._hashpipe.step()

    async def step(self) -> None:
        """Append one frame of each product of each module."""
        assert self._hashpipe is not None
        self._hashpipe.step()
        for fifo in self._fifos:
            for product in (self._config.movie_type, self._config.ph_type):
                self._tell(fifo, product)
        self._steps += 1
        if self._steps % 1000 == 0:
            self._hashpipe.prune()

    def _tell(self, fifo: Path, product: str) -> None:
        # Nobody may be listening yet, or any more, and a pipe may be full: none of it is a reason to stop.
        with contextlib.suppress(OSError):
            if self._fifos[fifo] < 0:
                self._fifos[fifo] = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._fifos[fifo], product.ljust(PIPE_MESSAGE_BYTES).encode())

    async def close(self) -> None:
        """End the run and delete what it wrote."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        for fifo, descriptor in self._fifos.items():
            if descriptor >= 0:
                os.close(descriptor)
            fifo.unlink(missing_ok=True)
        self._fifos.clear()
        if self._hashpipe is not None:
            self._hashpipe.close()
            self._hashpipe.remove()
        for mark in self._marks:
            mark.unlink(missing_ok=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


class SocketFeed:
    """Connects to the ingest sockets and sends what the newest Hashpipe sends."""

    def __init__(self, config: SimulationConfig, path_template: str) -> None:
        self._config = config
        self._template = path_template
        self._cameras: Cameras | None = None
        self._lines: dict[str, asyncio.StreamWriter] = {}

    async def prepare(self) -> None:
        """Read the archives."""
        self._cameras = await asyncio.to_thread(_cameras, self._config)

    async def step(self) -> None:
        """Send one frame of each product of each module."""
        assert self._cameras is not None
        for module_id, product, header, pixels in self._cameras.frames():
            line = self._lines.get(product.name)
            if line is None:
                path = self._template.format(dp_name=product.name)
                _, line = await asyncio.open_unix_connection(path)
                self._lines[product.name] = line
            line.write(module_id.to_bytes(2, "big") + format_frame(header, pixels, product.one_header))
            await line.drain()

    async def close(self) -> None:
        """Hang up."""
        for line in self._lines.values():
            line.close()


class UploadFeed:
    """Uploads frames to the server's own UNIX socket, as any uploader would."""

    def __init__(self, config: SimulationConfig, target: str | None, modules: frozenset[int]) -> None:
        self._config = config
        self._target = target
        self._modules = modules
        self._cameras: Cameras | None = None
        self._channel: Any = None
        self._call: Any = None
        self._number = 0

    async def prepare(self) -> None:
        """Read the archives; the server must have a UNIX socket."""
        if not self._target:
            raise StreamError(
                "The simulation mode rpc uploads to the server's own UNIX socket. Set unix_domain_socket."
            )
        self._cameras = await asyncio.to_thread(_cameras, self._config)

    async def step(self) -> None:
        """Upload one frame of each product of each module."""
        assert self._cameras is not None
        if self._call is None:
            target = str(self._target)
            self._channel = grpc.aio.insecure_channel(target if target.startswith("unix:") else f"unix:{target}")
            self._call = self._channel.stream_unary("/daqdata.DaqData/UploadImages")()
        for module_id, product, header, pixels in self._cameras.frames():
            if not self._modules or module_id in self._modules:
                await self._call.write(field(1, encode_image(self._frame(module_id, product, header, pixels))))
        self._number += 1

    def _frame(self, module_id: int, product: Product, header: dict[str, Any], pixels: bytes) -> Frame:
        file = f"rpc_sim_{product.name}.pff"
        return Frame(
            product.type,
            module_id,
            product.name,
            product.shape,
            product.bytes_per_pixel,
            header,
            pixels,
            file,
            self._number,
        )

    async def close(self) -> None:
        """End the upload."""
        if self._call is not None:
            self._call.cancel()
        if self._channel is not None:
            await self._channel.close()


def _cameras(config: SimulationConfig) -> Cameras:
    products = (str(config.movie_type), str(config.ph_type))
    return Cameras(tuple(config.sim_module_ids), products, archives_of(config))


def feed_of(config: ServerConfig, modules: frozenset[int]) -> Feed:
    """Return the feed that the configured `simulation_mode` names; `modules`, not empty, are those to deliver."""
    simulation = config.simulate_daq_cfg
    match simulation.simulation_mode:
        case "uds":
            return SocketFeed(simulation, config.acquisition_methods.uds.socket_path_template)
        case "rpc":
            return UploadFeed(simulation, config.unix_domain_socket, modules)
        case "filesystem_pipe":
            return FileFeed(simulation, config.read_status_pipe_name)
        case _:
            return FileFeed(simulation, None)
