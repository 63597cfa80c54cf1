"""A service beside control that acts on the outside, so that of two controls only the leader may run it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fieldstation.core.service import Service
from fieldstation.fleet.control.control import Control

log = logging.getLogger(__name__)

AGAIN_S = 2.0


class WhileLeading:
    """A service (`core.service.Service`): `make` gives a fresh one each time we begin to lead; it is stopped when
    another control does. One that fails while we lead is started again."""

    def __init__(self, name: str, control: Control, make: Callable[[], Service]) -> None:
        self.name = name
        self._control = control
        self._make = make
        self._current: Service | None = None

    async def start(self) -> None:
        """Start it now if we lead already, so that what keeps it from starting is said at once."""
        if self._control.leads:
            self._current = self._make()
            await self._current.start()

    async def run(self) -> None:
        """Run it whenever we lead, until cancelled."""
        changes = self._control.leading.stream()
        running: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            if self._control.leads:
                running = group.create_task(self._live(), name=self.name)
            async for leads in changes:
                if running is not None:
                    running.cancel()
                    await asyncio.wait([running])
                running = group.create_task(self._live(), name=self.name) if leads else None

    async def _live(self) -> None:
        while True:
            try:
                if self._current is None:
                    self._current = self._make()
                    await self._current.start()
                await self._current.run()
                return
            except Exception:
                log.exception("%s failed and is started again", self.name)
            finally:
                await self.stop()
            await asyncio.sleep(AGAIN_S)

    async def stop(self) -> None:
        """Stop what runs."""
        current, self._current = self._current, None
        if current is not None:
            await current.stop()

    def health(self) -> dict[str, object]:
        """Say how it is; while another control leads it is well."""
        return self._current.health() if self._current is not None else {"ok": True}
