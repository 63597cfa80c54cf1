"""A Socket.IO connection that comes back by itself, at whichever of its addresses answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import socketio
from socketio import exceptions

from fieldstation.core.retry import Backoff
from fieldstation.fleet.client.address import Address

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0  # documented wait for the hand-shake
# So long after a missed ping a line is dead. The server allows 60 s, for slow uploads; what we get is small and prompt,
# and a half-open connection (a router that was restarted) is noticed by nothing else.
SILENT_S = 10.0
MAX_MESSAGE = 2**26  # a worker may put many waveforms into one message


class LineDownError(Exception):
    """There is no connection at this moment; the line is being made again."""


class Line:
    """One line to a server. `run` keeps it; `up` is set while it stands.

    `auth` is asked at every hand-shake. `on_event` gets the arguments of the server's `event` messages and must not
    block: when it returns, the message is acknowledged. `on_up` hears of each connection, `on_down` of
    each that was lost, not of one that we close; `refusal` is the server's last reason for turning us away.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        addresses: Callable[[], Sequence[Address]],
        *,
        auth: Callable[[], Mapping[str, Any]],
        on_event: Callable[..., None],
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._addresses = addresses
        self._auth = auth
        self._on_event = on_event
        self._on_up = on_up
        self._on_down = on_down
        self._client: socketio.AsyncClient | None = None
        self._gone = asyncio.Event()
        self.up = asyncio.Event()
        self.refusal = ""
        self.url = ""  # which address the line goes to, or went to

    async def run(self) -> None:
        """Connect, stay connected, connect again, until cancelled."""
        backoff = Backoff(0.1, 5.0 if len(self._addresses()) == 1 else 1.0, jitter=0.3)
        attempt = 0
        while True:
            connected = await self._connect()
            if connected is None:
                await asyncio.sleep(backoff.delay(attempt))
                attempt += 1
                continue
            attempt = 0
            client, gone = connected
            try:
                self._client, self._gone = client, gone
                self.up.set()
                self._on_up()
                await gone.wait()
                self._on_down()
            finally:
                self._client = None
                self.up.clear()
                await _hang_up(client)

    async def _connect(self) -> tuple[socketio.AsyncClient, asyncio.Event] | None:
        for address in self._addresses():
            # A new client for each try: it carries no state of the connection that was lost.
            client = socketio.AsyncClient(
                reconnection=False,
                handle_sigint=False,
                http_session=self._session,
                websocket_extra_options={"max_msg_size": MAX_MESSAGE},
            )
            gone = asyncio.Event()
            client.on("disconnect", lambda *_, gone=gone: gone.set())
            client.on("event", self._on_event)
            client.on("connect_error", self._refused)
            try:
                async with asyncio.timeout(2 * HANDSHAKE_S):
                    await client.connect(
                        address.url,
                        headers=dict(address.headers),
                        auth=dict(self._auth()),
                        transports=["websocket"],
                        wait_timeout=HANDSHAKE_S,
                    )
            except (exceptions.ConnectionError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                log.debug("no line to %s: %s", address.url, error)
                self.refusal = self.refusal or str(error)
                await _hang_up(client)
                continue
            except asyncio.CancelledError:
                await _hang_up(client)
                raise
            self.refusal, self.url = "", address.url
            client.eio.ping_timeout = min(client.eio.ping_timeout, SILENT_S)
            return client, gone
        return None

    def _refused(self, *reason: Any) -> None:
        told = reason[0] if reason else ""
        self.refusal = str(told.get("message", told)) if isinstance(told, Mapping) else str(told)

    def renew(self) -> None:
        """Hang up and connect again, at the first of the addresses that answers."""
        self._gone.set()

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait until the line stands; False when it does not within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.up.wait()
        except TimeoutError:
            return False
        return True

    async def emit(self, event: str, data: Any, callback: Callable[..., None] | None = None) -> None:
        """Send one event; `callback` gets the server's acknowledgement. Raises LineDownError when there is no line."""
        client = self._client
        if client is None:
            raise LineDownError
        try:
            await client.emit(event, data, callback=callback)
        except exceptions.SocketIOError as error:
            raise LineDownError from error

    async def call(self, event: str, data: Any, timeout_s: float = 10.0) -> Any:
        """Send one event and return its acknowledgement; LineDownError when none comes in time."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def acknowledged(*arguments: Any) -> None:
            if not answer.done():
                answer.set_result(arguments[0] if arguments else None)

        await self.emit(event, data, callback=acknowledged)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise LineDownError from error


async def _hang_up(client: socketio.AsyncClient) -> None:
    try:
        async with asyncio.timeout(2):
            await client.disconnect()
    except (exceptions.SocketIOError, aiohttp.ClientError, TimeoutError, OSError):
        log.debug("a line did not close in order", exc_info=True)
    finally:
        # The library's client closes whatever session it still knows when it is collected, in whichever thread that
        # happens: ours, which other lines and requests use.
        client.eio.http = None
