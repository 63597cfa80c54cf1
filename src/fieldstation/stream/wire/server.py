"""A gRPC server as we run one: listeners, TLS, tokens, reflection, and one sentence when it cannot start."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from fieldstation.core.security import TokenFile, check_bind
from fieldstation.stream.config import ServerConfig
from fieldstation.stream.errors import SocketTakenError
from fieldstation.stream.wire.reflection import add_reflection
from fieldstation.stream.wire.security import TokenInterceptor, server_credentials

OPTIONS = (
    # Two servers on one port would each get some of the clients.
    ("grpc.so_reuseport", 0),
    # A client whose machine lost power is noticed within half a minute, and its slot is free.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", 1 << 20),
)


class GrpcServer:
    """Listens once `start` returned; `port` is then the real one."""

    def __init__(
        self, config: ServerConfig, handlers: Sequence[grpc.GenericRpcHandler], services: Sequence[str]
    ) -> None:
        self._config = config
        tokens = TokenFile(config.token_file) if config.token_file else None
        check_bind(config.host, has_tokens=bool(tokens), insecure=config.insecure)
        self._server: Any = grpc.aio.server(
            interceptors=[TokenInterceptor(tokens)] if tokens is not None else [],
            options=OPTIONS,
        )
        self._server.add_generic_rpc_handlers(tuple(handlers))
        add_reflection(self._server, services)
        self._socket: Path | None = None
        self.port = config.port

    @property
    def url(self) -> str:
        """What a client is pointed at: host and port."""
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        return f"{host}:{self.port}"

    async def start(self) -> None:
        """Bind and listen; SocketTakenError when an address is in use."""
        config = self._config
        try:
            if config.tls_certificate and config.tls_key:
                credentials = server_credentials(config.tls_certificate, config.tls_key, config.tls_client_ca)
                self.port = self._server.add_secure_port(self.url, credentials)
            else:
                self.port = self._server.add_insecure_port(self.url)
        except RuntimeError as error:
            raise SocketTakenError(address=self.url, problem="it is in use, or not an address of this host") from error
        if config.unix_domain_socket:
            self._socket = free_socket_path(config.unix_domain_socket)
            try:
                # Only this user and group: a local socket is open without a token.
                previous = os.umask(0o117)
                try:
                    self._server.add_insecure_port(f"unix:{self._socket}")
                finally:
                    os.umask(previous)
            except RuntimeError as error:
                raise SocketTakenError(address=self._socket, problem="the socket cannot be made") from error
        await self._server.start()

    async def wait(self) -> None:
        """Serve until stopped."""
        await self._server.wait_for_termination()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls at once, give running ones `grace_s`, remove the UNIX socket."""
        await self._server.stop(grace_s)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.unlink()


def free_socket_path(target: str) -> Path:
    """Return the path of `unix:...`; removes a stale socket, raises when it is in use or is no socket."""
    path = Path(target.removeprefix("unix:").replace("//", "/", 1) if target.startswith("unix:") else target)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return path
    if not stat.S_ISSOCK(mode):
        raise SocketTakenError(address=path, problem="a file that is no socket has this name")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return path
    raise SocketTakenError(address=path, problem="another server listens there")
