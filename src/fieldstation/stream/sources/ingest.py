"""The ingest sockets: the acquisition software connects and sends frames, one socket for each product.

On the wire: module id (2 bytes, big-endian), then the frame as in a PFF file, over and over.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from functools import partial
from pathlib import Path

from fieldstation.stream.config import IngestConfig
from fieldstation.stream.errors import SocketTakenError
from fieldstation.stream.model import PRODUCTS, Frame, HpIo, Product
from fieldstation.stream.pff import Damaged, next_frame
from fieldstation.stream.source import Publish

log = logging.getLogger(__name__)

_ID_BYTES = 2
_CHUNK_BYTES = 200 * 1024


class Deframer:
    """Cuts the byte stream of one connection into frames; finds the next one again after damage."""

    def __init__(self, product: Product, file: str) -> None:
        self.damaged = 0
        self._product = product
        self._file = file
        self._buffer = b""
        self._count = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes and return the frames that are complete now."""
        buffer = self._buffer + data
        frames: list[Frame] = []
        at = 0  # where the module id of the next frame is
        while True:
            result = next_frame(buffer, at + _ID_BYTES, self._product.image_bytes, gap=_ID_BYTES)
            if result is None:
                break
            if isinstance(result, Damaged):
                self.damaged += 1
                at = max(at, result.end - _ID_BYTES)
                continue
            product = self._product
            frames.append(
                Frame(
                    product.type,
                    int.from_bytes(buffer[at : at + _ID_BYTES], "big"),
                    product.name,
                    product.shape,
                    product.bytes_per_pixel,
                    result.header,
                    buffer[result.image_at : result.end],
                    self._file,
                    self._count,
                )
            )
            self._count += 1
            at = result.end
        self._buffer = buffer[at:]
        return frames


class IngestSource:
    """Listens on one UNIX socket for each configured product."""

    def __init__(self, request: HpIo, config: IngestConfig) -> None:
        self._modules = request.modules
        self._config = config
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._connections = 0
        self._damaged = 0

    async def start(self, publish: Publish) -> None:
        """Bind all sockets; SocketTakenError when a path is in use or no socket."""
        for name in self._config.data_products:
            path = Path(self._config.socket_path_template.format(dp_name=name))
            free_socket(path)
            serve = partial(self._serve, PRODUCTS[name], publish)
            try:
                self._servers.append(await asyncio.start_unix_server(serve, path, backlog=1))
            except OSError as error:
                raise SocketTakenError(address=path, problem=error.strerror or error) from error
            self._paths.append(path)
            os.chmod(path, self._config.socket_mode)  # noqa: PTH101 - the pathlib form is refused in async code

    async def _serve(
        self, product: Product, publish: Publish, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._connections += 1
        deframer = Deframer(product, f"uds_{product.name}")
        try:
            while True:
                async with asyncio.timeout(self._config.read_timeout):
                    data = await reader.read(_CHUNK_BYTES)
                if not data:
                    return
                before = deframer.damaged
                frames = deframer.feed(data)
                self._damaged += deframer.damaged - before
                publish([f for f in frames if not self._modules or f.module_id in self._modules])
        except TimeoutError:
            log.warning("no %s data for %g s; the connection is closed", product.name, self._config.read_timeout)
        except ConnectionError:
            log.info("the writer of %s went away", product.name)
        finally:
            self._connections -= 1
            writer.close()

    async def run(self) -> None:
        """Serve until cancelled."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Close and remove the sockets."""
        for server in self._servers:
            server.close()
            close_clients = getattr(server, "close_clients", None)  # from Python 3.13 on
            if close_clients is not None:
                close_clients()
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()
        self._servers, self._paths = [], []

    def demand(self, readers: int, every: bool) -> None:
        """Nothing to choose: what comes is published."""

    def history(self) -> None:
        """Nothing is kept."""

    def health(self) -> dict[str, object]:
        """Connections now and damaged stretches so far."""
        return {"ok": True, "connections": self._connections, "set_aside": self._damaged}


def free_socket(path: Path) -> None:
    """Remove a stale socket; SocketTakenError when somebody listens there, or the path is something else."""
    if not path.is_socket():
        if path.exists():
            raise SocketTakenError(address=path, problem="a file that is no socket has this name")
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(str(path))  # EAGAIN: somebody listens who has a caller already
    if refused not in (errno.ECONNREFUSED, errno.ENOENT):
        raise SocketTakenError(address=path, problem="another server listens there")
    path.unlink(missing_ok=True)
