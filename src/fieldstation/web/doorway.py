"""What stands at `/ui`: it lets in whom the guard knows, and opens the panel when the first one comes.

The panel's library costs time and memory; a control on a small board where nobody looks pays neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.responses import PlainTextResponse, RedirectResponse

from fieldstation.fleet.wire.guard import PRINCIPAL

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]

LONG = b"public, max-age=31536000, immutable"
POLICY = (
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


class Doorway:
    """An ASGI app and the service that lives behind it. `build` makes the panel's app; it is called once, late."""

    name = "panel"

    def __init__(self, build: Callable[[], FastAPI], prepare: Callable[[], Awaitable[None]]) -> None:
        self._build = build
        self._prepare = prepare
        self._wanted = asyncio.Event()
        self._open: asyncio.Future[FastAPI] | None = None

    async def start(self) -> None:
        """Get ready to let people in."""
        await self._prepare()
        self._open = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Open the panel when somebody comes, and keep it open until cancelled."""
        assert self._open is not None
        await self._wanted.wait()
        async with AsyncExitStack() as stack:
            try:
                app = await asyncio.to_thread(self._build)
                await stack.enter_async_context(app.router.lifespan_context(app))
            except Exception:
                log.exception("the panel cannot be opened")
                self._open.cancel()
                await asyncio.Event().wait()  # the fleet goes on without it
                return
            log.info("the panel is open")
            self._open.set_result(app)
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing is left to let go of."""

    def health(self) -> dict[str, object]:
        """Say how it is."""
        return {"ok": self._open is None or not self._open.cancelled()}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one request of somebody who is known; show others the way to the login."""
        if scope[PRINCIPAL] is None:
            await _turn_away(scope, receive, send)
            return
        if self._open is None:
            await PlainTextResponse("The panel is not ready yet; try again.", 503)(scope, receive, send)
            return
        self._wanted.set()
        try:
            app = await asyncio.shield(self._open)
        except asyncio.CancelledError:
            if not self._open.cancelled():
                raise
            await PlainTextResponse("The panel cannot be opened; the log says why.", 500)(scope, receive, send)
            return
        await app(scope, receive, _with_headers(send, lasting="/_nicegui/" in scope["path"]))


async def _turn_away(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "log in first"})
        return
    headers = dict(scope["headers"])
    if scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b""):
        path = quote(scope["path"], safe="/")
        await RedirectResponse(f"/ui/login?next={path}", 303)(scope, receive, send)
        return
    await PlainTextResponse("Log in at /ui/login first.", 401)(scope, receive, send)


def _with_headers(send: Callable[[Any], Awaitable[None]], *, lasting: bool) -> Callable[[Any], Awaitable[None]]:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *POLICY]
            if lasting and message["status"] == 200:  # their addresses hold the library's version
                headers = [(name, value) for name, value in headers if name.lower() != b"cache-control"]
                headers.append((b"cache-control", LONG))
            message = {**message, "headers": headers}
        await send(message)

    return sending
