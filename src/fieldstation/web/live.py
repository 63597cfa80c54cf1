"""`/ui/live/NAME`: pictures of one frame server over a WebSocket. The viewer says `more` when it has drawn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Role
from fieldstation.fleet.wire.guard import PRINCIPAL
from fieldstation.web.acting import Acting

if TYPE_CHECKING:  # frames need the extra `stream`, which a control may lack
    from fieldstation.web.frames import FrameSource, Viewer

LEAST_INTERVAL_S = 0.1  # ten pictures a second are enough for eyes
TELL_S = 1.0  # how often counters and histograms are told
POLICY = 1008


class Live:
    """The endpoint."""

    def __init__(self, sources: Mapping[str, FrameSource]) -> None:
        self._sources = sources

    async def serve(self, socket: WebSocket) -> None:
        """Serve one viewer until it goes."""
        source = self._sources.get(socket.path_params["name"])
        if source is None or socket.scope[PRINCIPAL] is None:
            await socket.close(POLICY)
            return
        from fieldstation.web.frames import Viewer

        acting, viewer = Acting(socket), Viewer()
        await socket.accept()
        more = asyncio.Event()
        more.set()
        source.add(viewer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(socket, viewer, more))
                group.create_task(self._tell(socket, source, viewer, acting))
                await self._hear(socket, more)
        except* (WebSocketDisconnect, RuntimeError, FieldstationError):
            pass  # it has gone, or must
        finally:
            source.remove(viewer)
            if socket.application_state is WebSocketState.CONNECTED:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await socket.close(POLICY)

    async def _hear(self, socket: WebSocket, more: asyncio.Event) -> None:
        while True:  # until the socket closes, which is an error
            if await socket.receive_text() == "more":
                more.set()

    async def _send(self, socket: WebSocket, viewer: Viewer, more: asyncio.Event) -> None:
        while True:
            await more.wait()
            more.clear()
            begun = time.monotonic()
            for message in await viewer.take():
                await socket.send_bytes(message)
            await socket.send_text('{"drawn": true}')
            await asyncio.sleep(max(0.0, LEAST_INTERVAL_S - (time.monotonic() - begun)))

    async def _tell(self, socket: WebSocket, source: FrameSource, viewer: Viewer, acting: Acting) -> None:
        while True:
            await acting.as_(Role.VIEWER, "looking at frames")
            await socket.send_text(json.dumps(source.counters(viewer)))
            await asyncio.sleep(TELL_S)
