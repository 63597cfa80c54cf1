"""The control server as a service: database, HTTP, Socket.IO, guard and port put together."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import socketio
from fastapi import FastAPI

from fieldstation.core.security import check_bind, is_loopback
from fieldstation.fleet.config import ControlConfig
from fieldstation.fleet.control import Control
from fieldstation.fleet.store import Store
from fieldstation.fleet.wire import http, vitals
from fieldstation.fleet.wire.guard import guarded
from fieldstation.fleet.wire.server import HttpServer
from fieldstation.fleet.wire.socket_log import socket_log
from fieldstation.fleet.wire.socketio_clients import ClientSockets
from fieldstation.fleet.wire.socketio_workers import WorkerLines
from fieldstation.fleet.wire.standby import StandbyGate

MAX_MESSAGE = 4 * 1024 * 1024  # the longest is the hello of a worker with thousands of devices


class ControlService:
    """A control server with its life (`core.service.Service`). `app` is the FastAPI app: what is to be served beside
    the fleet's own pages is mounted on it before `start`; `asgi` is the guard that stands in front of all of it."""

    name = "fleet control"

    def __init__(self, config: ControlConfig) -> None:
        self.config = config
        self.store = Store(config.database)
        self._sio = socketio.AsyncServer(
            async_mode="asgi",
            ping_interval=10,  # 25 as documented; sooner, a dead line is noticed sooner
            ping_timeout=60,  # as documented: slow Wi-Fi
            max_http_buffer_size=MAX_MESSAGE,
            engineio_logger=socket_log(),
            cors_allowed_origins=None,  # this origin only; the guard has looked as well
        )
        self._lines = WorkerLines(self._sio)
        self.control = Control(config, self.store, self._lines.call)
        self._lines.attach(self.control)
        self._clients = ClientSockets(self._sio, self.control)
        self._inside_asgi = False
        self.app: FastAPI = http.build(self.control, lifespan=self._lifespan)
        vitals.mount(self.app, self.control, self._clients.load)
        self.asgi = guarded(
            StandbyGate(socketio.ASGIApp(self._sio, self.app), self.control),
            self.control.authenticate,
            open_to_all=is_loopback(config.host) and not config.require_tokens,
            insecure=config.insecure,
            names={config.host, *config.allow_hosts},
        )
        self._server = HttpServer(
            self.asgi,
            host=config.host,
            port=config.port,
            certificate=config.tls_certificate,
            key=config.tls_key,
            stopping=self.control.queue.close,
            max_message=MAX_MESSAGE,
        )

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        return self._server.url

    async def start(self) -> None:
        """Open the database, check that tokens exist where they must, take the port; lead or stand by."""
        await self._open()
        self._server.bind()
        await self.control.start(f"{socket.gethostname()}:{self._server.port}", port_is_ours=True)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work())
            await self._server.run()
            work.cancel()

    async def stop(self) -> None:
        """Write what is not on disk yet and let go."""
        self._server.close()
        await self._sio.shutdown()
        await self.control.stop()

    def health(self) -> dict[str, object]:
        """Say how it is: whether it leads, devices and workers by state."""
        return vitals.health(self.control)

    def as_asgi(self) -> Any:
        """Return the app for a server that is not ours."""
        self._inside_asgi = True
        return self.asgi

    async def _open(self) -> None:
        await asyncio.to_thread(self.store.claim)
        await asyncio.to_thread(self.store.open)
        await self.control.refresh_tokens()
        check_bind(self.config.host, has_tokens=self.control.has_tokens(), insecure=self.config.insecure)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.control.run(), name="control")
            group.create_task(self._clients.run(), name="clients")
            group.create_task(self._send_away(), name="deposed")

    async def _send_away(self) -> None:
        """Hang up on everybody when another control leads: they know its address too."""
        changes = self.control.leading.stream()
        async for leads in changes:
            if not leads:
                await self._clients.hang_up()
                await self._lines.hang_up()

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        if not self._inside_asgi:
            yield
            return
        await self._open()
        await self.control.start(f"{socket.gethostname()}:{self.config.port}", port_is_ours=False)
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._work())
                yield
                work.cancel()
        finally:
            await self._sio.shutdown()
            await self.control.stop()
