"""One message in work: how it stands, which outputs it made, and what "current message" means to a handler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from fieldstation.pipeline.model import Delivery, Message

SEND_WINDOW = 256  # unconfirmed outputs of one message after which its handler waits


class Work:
    """A delivery on its way from arrival to settlement. Belongs to the event loop's thread."""

    __slots__ = (
        "arrived",
        "confirmed",
        "delivery",
        "error",
        "finished",
        "home",
        "indexes",
        "message",
        "progressed",
        "room",
        "started",
        "task",
        "timed_out",
        "tries",
        "unconfirmed",
        "withdrawn",
    )

    def __init__(self, delivery: Delivery, home: Any) -> None:
        self.delivery = delivery
        self.home = home  # the lane it came in by
        self.message: Message | None = None
        self.arrived = self.progressed = time.monotonic()
        self.confirmed: Callable[[Work], None] | None = None  # called when the last output is confirmed
        self.withdrawn = False
        self.room: asyncio.Event | None = None
        self.tries = 0
        self.begin()

    def begin(self) -> None:
        """Start a try: output numbers count from 0 again, so that a redo makes the same ids."""
        self.started = 0.0
        self.task: asyncio.Task[None] | None = None
        self.timed_out = False
        self.finished = False
        self.unconfirmed = 0
        self.error: Exception | None = None
        self.indexes: dict[str, int] = {}

    def next_index(self, channel: str) -> int:
        """Number the next output on `channel`."""
        index = self.indexes.get(channel, 0)
        self.indexes[channel] = index + 1
        return index

    def output_done(self, error: Exception | None) -> None:
        """One output is confirmed, or never will be."""
        self.unconfirmed -= 1
        if error is not None and self.error is None:
            self.error = error
        if self.room is not None and self.unconfirmed < SEND_WINDOW:
            self.room.set()
        if self.finished and not self.unconfirmed and self.confirmed is not None:
            self.confirmed(self)

    async def wait_for_room(self) -> None:
        """Wait until fewer than SEND_WINDOW outputs are unconfirmed: a handler may not outrun the broker."""
        while self.unconfirmed >= SEND_WINDOW:
            self.room = asyncio.Event()
            await self.room.wait()
        self.room = None


# Each handler call sees its own message, also with many in work at the same time and in threads.
current: ContextVar[Work | None] = ContextVar("pipeline_current_message", default=None)
