"""Reservations live on while their program does: extended in time, and when control says that they end soon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from fieldstation.core.errors import FieldstationError
from fieldstation.fleet.client.reserving import Held
from fieldstation.fleet.errors import NotHeldError

log = logging.getLogger(__name__)

EXTEND_AT_MOST_S = 600.0
AGAIN_S = 1.0  # after a control that did not answer


class Extension:
    """Extends what is in `held`, and drops what control does not know any more."""

    def __init__(
        self,
        held: Mapping[str, Held],
        extend: Callable[[list[str]], Awaitable[list[str]]],
        drop: Callable[[str, str], None],
    ) -> None:
        self._held = held
        self._extend = extend
        self._drop = drop
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """Extend now: control says that time is short. Its clock may have been set, or another control leads."""
        self._soon.set()

    async def run(self) -> None:
        """Extend for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(extension_period_s([held.ends_in_s for held in self._held.values()])):
                    await self._soon.wait()
            self._soon.clear()
            asked = list(self._held)
            if not asked:
                continue
            try:
                extended = await self._extend(asked)
            except NotHeldError as error:
                log.warning("reservations cannot be extended: %s", error)
                extended = []
            except FieldstationError as error:
                log.warning("reservations could not be extended, trying again: %s", error)
                await asyncio.sleep(AGAIN_S)
                self._soon.set()
                continue
            for serial in set(asked) - set(extended):
                self._drop(serial, "its reservation is over")


def extension_period_s(ends_in_s: Sequence[float]) -> float:
    """Return how long to wait before the next extension: well within the shortest lease, often enough for new ones."""
    return max(0.2, min([EXTEND_AT_MOST_S, 1.0 if not ends_in_s else min(ends_in_s) / 3]))
