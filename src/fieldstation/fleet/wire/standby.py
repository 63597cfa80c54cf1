"""What a control that does not lead answers: 503 and who does. Its health, metrics and documentation stay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from fieldstation.fleet.control import Control
from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.wire.faults import body_of

Scope = dict[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

# Socket.IO says it in its own words, in the hand-shake.
STAYS = ("/health", "/metrics", "/docs", "/openapi.json", "/style.css", "/socket.io/")


class StandbyGate:
    """ASGI middleware behind the guard."""

    def __init__(self, app: App, control: Control) -> None:
        self.app = app
        self.control = control

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one connection, or send it away. A WebSocket that is open when we are deposed is closed."""
        if scope["type"] in ("http", "websocket") and not scope["path"].startswith(STAYS):
            try:
                self.control.must_lead()
            except NotLeaderError as error:
                await _refuse(scope, send, error)
                return
            if scope["type"] == "websocket":
                await self._until_deposed(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _until_deposed(self, scope: Scope, receive: Any, send: Any) -> None:
        deposed = asyncio.Event()
        end = self.control.leading.subscribe(lambda leads: None if leads else deposed.set())
        serving = asyncio.ensure_future(self.app(scope, receive, send))
        waiting = asyncio.ensure_future(deposed.wait())
        try:
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()  # what went wrong there is the server's to log
        finally:
            end()
            serving.cancel()
            waiting.cancel()
            await asyncio.gather(serving, waiting, return_exceptions=True)


async def _refuse(scope: Scope, send: Callable[[Any], Awaitable[None]], error: NotLeaderError) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013, "reason": error.code})
        return
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    body = json.dumps(body_of(error)).encode()
    if scope["path"] == "/":  # a person
        headers[0] = (b"content-type", b"text/plain; charset=utf-8")
        body = f"{error}\n".encode()
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
