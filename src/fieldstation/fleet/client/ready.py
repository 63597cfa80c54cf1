"""Who waits for which device to be ready, and is woken when it is, or when it never will be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from fieldstation.fleet.errors import ReservationFailedError


class Readiness:
    """One future per waiter and device; several may wait for the same device."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def expect(self, serials: Iterable[str]) -> dict[str, asyncio.Future[None]]:
        """Begin to wait, before the request that leads to `initialized`, so that no event comes too early."""
        loop = asyncio.get_running_loop()
        futures = {serial: loop.create_future() for serial in serials}
        for serial, future in futures.items():
            self._waiters.setdefault(serial, []).append(future)
            # A waiter that gave up leaves its future behind: its error needs no reader then.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return futures

    def ready(self, serial: str) -> None:
        """The device is ready for requests."""
        for future in self._waiters.pop(serial, ()):
            if not future.done():
                future.set_result(None)

    def lost(self, serial: str, reason: str) -> None:
        """The device will not get ready: its waiters get ReservationFailedError with the reason."""
        for future in self._waiters.pop(serial, ()):
            if not future.done():
                future.set_exception(ReservationFailedError(serial=serial, reason=reason))

    def forget(self, futures: dict[str, asyncio.Future[None]]) -> None:
        """End one wait."""
        for serial, future in futures.items():
            with suppress(KeyError, ValueError):
                self._waiters[serial].remove(future)
            future.cancel()
