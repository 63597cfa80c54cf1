"""A typed publisher inside one process: who changes something tells everyone who asked to know."""

from __future__ import annotations

import asyncio
import logging
import weakref
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
        self._callbacks: dict[object, Callable[[T], None]] = {}

    def subscribe(self, callback: Callable[[T], None]) -> Callable[[], None]:
        """Call `callback` with every event from now on; the returned function ends that, any number of times."""
        key = object()
        self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe

    def publish(self, event: T) -> None:
        """Deliver `event` to all current subscribers before returning."""
        for callback in tuple(self._callbacks.values()):
            try:
                callback(event)
            except Exception:
                log.exception("a subscriber failed on %r", event)

    def stream(self, *, buffer: int = 1000) -> Stream[T]:
        """Return an async iterator over the events from this call on, also those before the first step.

        A reader more than `buffer` events behind loses the oldest ones. It ends with `aclose()` or when it is dropped.
        """
        return Stream(self, buffer)


class Stream(AsyncIterator[T]):
    """The events of a publisher, one after the other; `lost` counts those the reader was too slow for."""

    def __init__(self, publisher: Publisher[T], buffer: int) -> None:
        self._pending: deque[T] = deque()
        self._buffer = buffer
        self._arrived = asyncio.Event()
        self._closed = False
        self.lost = 0
        # The publisher must not keep a stream alive that its reader has dropped.
        weak = weakref.WeakMethod(self._receive)

        def receive(event: T) -> None:
            if (method := weak()) is not None:
                method(event)

        self._unsubscribe = publisher.subscribe(receive)
        weakref.finalize(self, self._unsubscribe).atexit = False

    def _receive(self, event: T) -> None:
        if len(self._pending) == self._buffer:
            self._pending.popleft()
            self.lost += 1
        self._pending.append(event)
        self._arrived.set()

    async def __anext__(self) -> T:
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._pending.popleft()

    async def aclose(self) -> None:
        """Take no further events; a reader that waits is released after what it has not read yet."""
        self._closed = True
        self._unsubscribe()
        self._arrived.set()
