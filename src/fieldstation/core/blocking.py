"""One event loop in a background thread, so that a blocking face can call an async client."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

UNWIND_S = 5.0  # how long a cancelled coroutine may take to let go before its caller goes on without it
LOOK_S = 0.2  # how often a waiting thread looks whether Ctrl-C was pressed without waking it


class Portal:
    """Runs coroutines on a loop of its own thread. Threads may share one; a forked child gets a fresh loop."""

    def __init__(self) -> None:
        self._start_afresh()
        os.register_at_fork(after_in_child=self._start_afresh)

    def _start_afresh(self) -> None:
        # After a fork the thread is gone, and its lock may be held by a thread that is gone too. The loop is kept:
        # to collect it would close descriptors that belong to the parent.
        self._parents = getattr(self, "_loop", None)
        # Reentrant: a signal handler that calls us may have interrupted the very thread that holds it.
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The background loop, started on first use."""
        with self._lock:
            return self._running()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            # A daemon, so that an interpreter whose user forgot to close something still ends.
            self._thread = threading.Thread(target=_turn, args=(loop,), name="fieldstation-portal", daemon=True)
            self._thread.start()
            self._loop = loop
        return self._loop

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run `coroutine` and return its result; Ctrl-C here, or TimeoutError, cancels it there and lets it unwind."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("A blocking call was made from the event loop itself; use the async client there.")
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            if done.done():
                return
            task = asyncio.get_running_loop().create_task(coroutine)
            tasks.append(task)
            task.add_done_callback(lambda task: _transfer(task, done))

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            elif not done.done():
                coroutine.close()
                done.cancel()

        loop = self.loop
        try:
            # Under the lock, so that it comes before the loop's end or after its next start, never in between.
            with self._lock:
                loop = self._running()
                loop.call_soon_threadsafe(start)
            return _outcome(done, timeout_s)
        except (KeyboardInterrupt, TimeoutError):
            # Ctrl-C may strike anywhere above, so it is the loop's thread that knows whether the task has begun.
            if not done.done():
                with suppress(RuntimeError):  # the loop was closed meanwhile, and all its tasks with it
                    loop.call_soon_threadsafe(cancel)
                concurrent.futures.wait([done], UNWIND_S)
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Walk an async iterator from a thread; leaving the loop early closes the source."""
        loop = self.loop
        try:
            while True:
                try:
                    yield self.call(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            close = getattr(source, "aclose", None)
            if close is not None and not loop.is_closed():
                self.call(close())

    def close(self) -> None:
        """Cancel what runs, and end the loop and its thread; the next call starts new ones."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread = self._thread
            if loop is not None:
                loop.call_soon_threadsafe(loop.stop)
        if thread is not None and thread is not threading.current_thread():
            thread.join(UNWIND_S)


def _outcome(done: concurrent.futures.Future[T], timeout_s: float | None) -> T:
    # A signal that strikes just before the wait, or in another thread, leaves only a mark and wakes nobody: so we wait
    # in slices. On a plain lock, because Future.result() can be interrupted half way through its own locking.
    finished = threading.Lock()
    finished.acquire()
    done.add_done_callback(lambda _: finished.release())
    until = None if timeout_s is None else time.monotonic() + timeout_s
    while not finished.acquire(timeout=LOOK_S if until is None else max(0.0, min(LOOK_S, until - time.monotonic()))):
        if until is not None and time.monotonic() >= until:
            raise TimeoutError
    return done.result()


async def _next(source: AsyncIterator[T]) -> T:
    # A plain coroutine may end with StopAsyncIteration; an async generator in its place could not.
    return await anext(source)


def _transfer(task: asyncio.Task[T], done: concurrent.futures.Future[T]) -> None:
    if task.cancelled():
        done.set_exception(concurrent.futures.CancelledError("The call was cancelled."))
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


portal = Portal()
# Registered at import: users' own atexit handlers come later and therefore run earlier, while the loop still turns.
atexit.register(portal.close)
