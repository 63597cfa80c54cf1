"""A typed publisher inside one process: who changes something tells everyone who asked to know."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class Publisher(Generic[T]):
    """Hands each published event to every subscriber, in the order they subscribed.

    A subscriber that raises is logged and does not stop the others. Call from one thread (the event loop's).
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[[T], None]] = []

    def subscribe(self, callback: Callable[[T], None]) -> Callable[[], None]:
        """Call `callback` with every event from now on; the returned function ends that, any number of times."""
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    def publish(self, event: T) -> None:
        """Deliver `event` to all current subscribers before returning."""
        for callback in tuple(self._callbacks):
            try:
                callback(event)
            except Exception:
                log.exception("a subscriber failed on %r", event)

    async def stream(self, *, buffer: int = 1000) -> AsyncIterator[T]:
        """Yield events from now on; a reader more than `buffer` events behind loses the oldest ones."""
        pending: deque[T] = deque(maxlen=buffer)
        arrived = asyncio.Event()

        def receive(event: T) -> None:
            pending.append(event)
            arrived.set()

        unsubscribe = self.subscribe(receive)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                while pending:
                    yield pending.popleft()
        finally:
            unsubscribe()
