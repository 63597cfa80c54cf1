"""A source of the panel runs beside control: whatever it trips over, reservations go on."""

from __future__ import annotations

import asyncio
import logging

from fieldstation.core.retry import Backoff
from fieldstation.core.service import Service

log = logging.getLogger(__name__)


class Beside:
    """A service (`core.service.Service`) around one that may fail: it is run again, and its failure is logged."""

    def __init__(self, service: Service) -> None:
        self.name = service.name
        self._service = service

    async def start(self) -> None:
        """Start it; what keeps it from starting is a mistake in the settings, and is said at once."""
        await self._service.start()

    async def run(self) -> None:
        """Run it until it is done or we are cancelled."""
        for delay in Backoff(initial_s=0.5, ceiling_s=30.0):
            try:
                await self._service.run()
                return
            except Exception:
                log.exception("what the panel shows of %s failed, and is read again", self.name)
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """Stop it."""
        await self._service.stop()

    def health(self) -> dict[str, object]:
        """Say how it is."""
        return self._service.health()
