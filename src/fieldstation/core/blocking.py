"""One event loop in a background thread, so that a blocking face can call an async client."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """Runs coroutines on a loop of its own thread. Threads may share one; a forked child gets a fresh loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The background loop, started on first use."""
        # Without the lock while it runs: a signal handler that calls us may have interrupted its holder.
        running = self._loop
        if running is not None and self._pid == os.getpid():
            return running
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                # A daemon, so that an interpreter whose user forgot to close something still ends.
                threading.Thread(target=self._loop.run_forever, name="fieldstation-portal", daemon=True).start()
            return self._loop

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run `coroutine` and return its result; Ctrl-C here cancels it there."""
        loop = self.loop
        if threading.current_thread().name == "fieldstation-portal":
            coroutine.close()
            raise RuntimeError("A blocking call was made from the event loop itself; use the async client there.")
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result(timeout_s)
        except (KeyboardInterrupt, concurrent.futures.TimeoutError):
            future.cancel()
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Walk an async iterator from a thread; leaving the loop early closes the source."""
        try:
            while True:
                try:
                    yield self.call(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(source, "aclose", None)
            if close is not None and not self.loop.is_closed():
                self.call(close())

    def close(self) -> None:
        """Stop the loop; the next call starts a new one."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._pid == os.getpid():
            loop.call_soon_threadsafe(loop.stop)


async def _next(source: AsyncIterator[T]) -> T:
    # StopAsyncIteration may not pass through a Task as StopIteration may not; a plain coroutine carries it.
    return await anext(source)


portal = Portal()
# Registered at import: users' own atexit handlers come later and therefore run earlier, while the loop still turns.
atexit.register(portal.close)
