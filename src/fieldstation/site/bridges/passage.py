"""Send into a pipeline with a bounded number of messages on their way, and tell when each is confirmed.

That bound is the back-pressure: when the message server is slow, `send` waits, and whoever feeds it waits too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.struct_pb2 import Struct

from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.errors import PipelineError

log = logging.getLogger(__name__)

WINDOW = 64

Done = Callable[[bool], Awaitable[None]]


class Passage:
    """`send(message, id, done)`: `done(True)` is awaited once the message is stored, in the order of sending;
    `done(False)` when it can never be."""

    def __init__(self, sdk: ProcessContext, window: int = WINDOW) -> None:
        self._messaging = sdk.messaging
        self._waiting: asyncio.Queue[tuple[Any, Done]] = asyncio.Queue(window)

    async def send(self, message: Struct, identity: str, done: Done, chan: str | None = None) -> None:
        """Hand a message over under its request id; waits while too many are on their way."""
        try:
            sending = self._messaging.send_output_with_request_id(message, identity, chan)
        except PipelineError as error:
            log.error("%s cannot be sent and is left out: %s", identity, error)
            await done(False)
            return
        await self._waiting.put((sending, done))

    @property
    def is_idle(self) -> bool:
        """Nothing is on its way."""
        return self._waiting.empty()

    async def settle(self) -> None:
        """Wait for confirmations and tell them, until cancelled."""
        while True:
            sending, done = await self._waiting.get()
            try:
                await sending.confirmed()
            except PipelineError as error:
                log.error("a message was refused and is left out: %s", error)
                await done(False)
                continue
            await done(True)


@asynccontextmanager
async def passage(sdk: ProcessContext, window: int = WINDOW) -> AsyncIterator[Passage]:
    """Open a passage; its end lets go of what is not confirmed yet, which a durable source hands out again."""
    opened = Passage(sdk, window)
    async with asyncio.TaskGroup() as group:
        settling = group.create_task(opened.settle())
        try:
            yield opened
        finally:
            settling.cancel()
