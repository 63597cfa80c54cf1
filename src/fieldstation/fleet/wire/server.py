"""An ASGI app on a port, as a part of somebody's life: bound before it is ready, stopped when told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import server_tls

GRACE_S = 3  # for answers that are on their way when the server stops


class PortError(FieldstationError):
    """Cannot listen on {host} port {port}: {problem}. Is another server running there? Choose another with --port."""


class _Quiet(uvicorn.Server):
    """A uvicorn that leaves signals to the process it lives in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """`bind`, `run` until cancelled or stopped. Connections are accepted from `bind` on."""

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        certificate: Path | None = None,
        key: Path | None = None,
        stopping: Callable[[], None] = lambda: None,
        max_message: int = 100_000_000,
    ) -> None:
        self.stopping = stopping  # called first when it stops, so that long requests can be answered
        self.host = host
        self.port = port
        self.scheme = "https" if certificate is not None else "http"
        self._tls = (certificate, key) if certificate is not None and key is not None else None
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="on",
            ws="websockets-sansio",
            ws_max_size=max_message,
            ws_ping_interval=None,  # Socket.IO has pings of its own
            ws_per_message_deflate=False,  # bitstreams do not shrink, and events would be compressed once per client
            timeout_keep_alive=75,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=str(certificate) if certificate is not None else None,
            ssl_keyfile=str(key) if key is not None else None,
        )
        self._server = _Quiet(config)
        self._socket: socket.socket | None = None

    def bind(self) -> None:
        """Take the port, or say in one sentence why not. The server itself reads the TLS files only when it runs."""
        if self._tls is not None:
            server_tls(*self._tls)
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.host.strip("[]"), self.port))
            sock.listen(2048)
        except OSError as error:
            raise PortError(host=self.host, port=self.port, problem=error.strerror or error) from error
        self._socket = sock
        self.port = sock.getsockname()[1]

    @property
    def url(self) -> str:
        """Where a person on this machine reaches it."""
        host = self.host
        if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            host = "127.0.0.1"
        elif ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{self.scheme}://{host}:{self.port}"

    async def run(self) -> None:
        """Serve until cancelled, then let running answers end."""
        assert self._socket is not None
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._server.serve(sockets=[self._socket]))
            try:
                await asyncio.shield(serving)
            except asyncio.CancelledError:
                self.stopping()
                self._server.should_exit = True
                async with asyncio.timeout(GRACE_S + 2):
                    await asyncio.shield(serving)
                raise

    def close(self) -> None:
        """Give the port back."""
        if self._socket is not None:
            self._socket.close()
