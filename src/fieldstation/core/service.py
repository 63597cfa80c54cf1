"""A service is a thing with a life: start, run until stopped, stop within a deadline. `run` gives it a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

log = logging.getLogger(__name__)

STOP_DEADLINE_S = 10.0


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
    """Start `services` in order, run them together, stop them in reverse order when one fails or we are cancelled."""
    started: list[Service] = []
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
        # One failed service is one sentence for the person at the terminal; the rest was only cancelled.
        raise group_error.exceptions[0] from None
    finally:
        for service in reversed(started):
            await _stop(service, stop_deadline_s)


async def _stop(service: Service, deadline_s: float) -> None:
    try:
        async with asyncio.timeout(deadline_s):
            await service.stop()
    except TimeoutError:
        log.error("%s did not stop within %g s and is left behind", service.name, deadline_s)
    except Exception:
        log.exception("%s failed while stopping", service.name)


async def until_signalled(main: asyncio.Task[None]) -> None:
    """Await `main`; the first SIGTERM or SIGINT cancels it, and then its end is a clean end."""
    loop = asyncio.get_running_loop()
    signalled = False

    def stop() -> None:
        nonlocal signalled
        signalled = True
        main.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await main
        if not signalled and main.cancelled():
            raise asyncio.CancelledError
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def run(
    services: Sequence[Service], *, ready_url: Callable[[], str] | None = None, stop_deadline_s: float = STOP_DEADLINE_S
) -> None:
    """The life of a server process: start, print `ready <url>` on stdout, work, stop cleanly on SIGTERM."""

    def ready() -> None:
        if ready_url is not None:
            sys.stdout.write(f"ready {ready_url()}\n")
            sys.stdout.flush()

    await until_signalled(asyncio.create_task(serve(services, ready=ready, stop_deadline_s=stop_deadline_s)))
