"""A service is a thing with a life: start, run until stopped, stop within a deadline. `run` gives it a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

log = logging.getLogger(__name__)

# All services together; with the hard end below a server is gone 10 s after SIGTERM, as promised.
STOP_DEADLINE_S = 8.0
HARD_END_AFTER_S = 2.0


class Service(Protocol):
    """What `run` and a supervisor need to know of a server, worker or bridge."""

    name: str

    async def start(self) -> None:
        """Get ready to work; raise one sentence when that is impossible."""

    async def run(self) -> None:
        """Work until cancelled; returning early means the work is done."""

    async def stop(self) -> None:
        """Let go of everything; called once, also after a failed start."""

    def health(self) -> dict[str, object]:
        """Say how it is: `{"ok": bool, ...}`."""


async def serve(
    services: Sequence[Service], *, ready: Callable[[], None] | None = None, stop_deadline_s: float = STOP_DEADLINE_S
) -> None:
    """Start `services` in order, run them together, stop them in reverse order when one fails or we are cancelled.

    `stop_deadline_s` is for all of them together; who is late is left behind and said so in the log.
    """
    started: list[Service] = []
    failure: BaseException | None = None
    try:
        for service in services:
            started.append(service)
            await service.start()
        if ready is not None:
            ready()
        async with asyncio.TaskGroup() as group:
            for service in services:
                group.create_task(service.run(), name=service.name)
    except BaseExceptionGroup as group_error:
        # The first failure is the sentence for the person at the terminal; the rest was only cancelled by it.
        failure, *others = _leaves(group_error)
        for other in others:
            log.error("and then: %s", other)
    finally:
        deadline = asyncio.get_running_loop().time() + stop_deadline_s
        for service in reversed(started):
            await _stop(service, deadline)
    if failure is not None:
        raise failure  # here and not above, so that the cause chained to it stays as it is


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def _stop(service: Service, deadline: float) -> None:
    try:
        async with asyncio.timeout_at(deadline) as limit:
            await service.stop()
    except (Exception, asyncio.CancelledError) as error:
        # Early Python 3.11 (Debian 12 has it) tells of a timeout in a task that is being cancelled, as ours often is
        # here, by CancelledError instead of TimeoutError.
        if limit.expired():
            log.error("%s did not stop in time and is left behind", service.name)
        elif isinstance(error, asyncio.CancelledError):
            raise
        else:
            log.exception("%s failed while stopping", service.name)


async def until_signalled(main: asyncio.Task[None], *, hard_end_s: float = STOP_DEADLINE_S + HARD_END_AFTER_S) -> None:
    """Await `main`; the first SIGTERM or SIGINT cancels it, and then its end is a clean end.

    Further signals change nothing, but `hard_end_s` after the first the process ends with exit code 1, done or not.
    """
    loop = asyncio.get_running_loop()
    signalled = False
    asked, ended = threading.Event(), threading.Event()

    def watch() -> None:
        asked.wait()
        if not ended.wait(hard_end_s):
            _end_process()

    def stop(number: int, frame: object) -> None:
        nonlocal signalled
        if not signalled:
            signalled = True
            asked.set()
            loop.call_soon_threadsafe(main.cancel)

    # A thread and plain signal handlers, because what hangs may be the event loop itself.
    threading.Thread(target=watch, name="hard-end", daemon=True).start()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await main
        if not signalled and main.cancelled():
            raise asyncio.CancelledError
    finally:
        ended.set()
        asked.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_process() -> None:
    sys.stderr.write("fieldstation: something does not stop; ending without it\n")
    sys.stderr.flush()
    os._exit(1)


class Announcement:
    """Prints `ready <url>` once `until_ready` returns; a service beside one that is ready later than it is started."""

    name = "ready"

    def __init__(self, until_ready: Callable[[], Awaitable[None]], url: Callable[[], str]) -> None:
        self._until_ready = until_ready
        self._url = url

    async def start(self) -> None:
        """Nothing to start."""

    async def run(self) -> None:
        """Wait, tell, and be done."""
        await self._until_ready()
        say_ready(self._url())

    async def stop(self) -> None:
        """Nothing to stop."""

    def health(self) -> dict[str, object]:
        """Always well."""
        return {"ok": True}


def say_ready(url: str) -> None:
    """Print the line by which whoever started us knows that work is accepted."""
    with contextlib.suppress(BrokenPipeError):  # whoever started us may have stopped reading
        sys.stdout.write(f"ready {url}\n")
        sys.stdout.flush()


async def run(
    services: Sequence[Service], *, ready_url: Callable[[], str] | None = None, stop_deadline_s: float = STOP_DEADLINE_S
) -> None:
    """The life of a server process: start, print `ready <url>` on stdout, work, stop cleanly on SIGTERM."""

    def ready() -> None:
        if ready_url is not None:
            say_ready(ready_url())

    main = asyncio.create_task(serve(services, ready=ready, stop_deadline_s=stop_deadline_s))
    await until_signalled(main, hard_end_s=stop_deadline_s + HARD_END_AFTER_S)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where that is installed, else asyncio's own; for `asyncio.Runner(loop_factory=)`."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
