"""`EventServer`: the documented listener on its own, for clients that people build themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import aiohttp

from fieldstation import __version__
from fieldstation.core.blocking import portal
from fieldstation.core.security import own_token
from fieldstation.fleet.blocking.dispatch import Dispatcher
from fieldstation.fleet.blocking.handlers import AbstractEventHandler
from fieldstation.fleet.client.address import parse as parse_address
from fieldstation.fleet.client.background import Background
from fieldstation.fleet.client.events import parse
from fieldstation.fleet.client.http import new_session
from fieldstation.fleet.client.line import Line, LineDownError


class EventServer(Dispatcher):
    """Listens to a control server and to workers as `client_id` and routes their events to handlers.

    An address may carry user-info: a user's token for control (else FIELDSTATION_TOKEN does), the lease for a worker.
    Lines come back by themselves.
    """

    def __init__(
        self, client_id: str, handlers: Iterable[AbstractEventHandler] = (), logger: logging.Logger | None = None
    ) -> None:
        super().__init__(handlers, logger)
        self.client_id = client_id
        self._background: Background | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lines: dict[str, tuple[Line, Any]] = {}

    def connectControl(self, url: str, timeout: float = 10.0) -> bool:
        """Connect to a control server; False when it does not answer within `timeout` seconds (it is tried on)."""
        return portal.call(self._connect(url, timeout, lease=False))

    def connectWorker(self, url: str, timeout: float = 10.0) -> bool:
        """Connect to a worker at the address that a reservation named; False when it does not answer in time."""
        return portal.call(self._connect(url, timeout, lease=True))

    def sendWorker(self, url: str, event: str, data: Any) -> bool:
        """Emit a Socket.IO event to a connected worker; False when there is no line to it."""
        return portal.call(self._send(url, event, data))

    def disconnectWorker(self, url: str) -> None:
        """Hang up; nothing when there is no such line."""
        found = self._lines.pop(url.rstrip("/"), None)
        if found is not None:
            portal.loop.call_soon_threadsafe(found[1].cancel)

    def exit(self) -> None:
        """Hang up everywhere and end the handlers; any number of times."""
        background, self._background = self._background, None
        session, self._session = self._session, None
        self._lines.clear()
        if background is not None and session is not None:
            portal.call(_close(background, session))
        self.close_handlers()

    async def _connect(self, url: str, timeout_s: float, *, lease: bool) -> bool:
        key = url.rstrip("/")
        if key not in self._lines:
            if self._background is None or self._session is None:
                self._background, self._session = Background(), new_session()
                await self._background.open()
            address = parse_address(key, None if lease else own_token())
            hello: dict[str, Any] = {"client_id": self.client_id, "fieldstation": __version__}
            if lease and address.token:
                hello["leases"] = [address.token]
            line = Line(self._session, lambda: (address,), auth=lambda: hello, on_event=self._hear)
            self._lines[key] = (line, self._background.spawn(line.run(), f"line to {address.url}"))
        return await self._lines[key][0].wait_up(timeout_s)

    async def _send(self, url: str, event: str, data: Any) -> bool:
        try:
            await self._lines[url.rstrip("/")][0].emit(event, data)
        except (KeyError, LineDownError):
            return False
        return True

    def _hear(self, message: Any = None, *_: Any) -> None:
        for event in parse(message):
            self.later(event)


async def _close(background: Background, session: aiohttp.ClientSession) -> None:
    await background.close()
    await session.close()
