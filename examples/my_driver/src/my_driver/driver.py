"""Which devices there are. This driver has one that is always there; a real one would watch a bus."""

import asyncio
from collections.abc import AsyncIterator

from fieldstation.fleet.driver import Driver, Hotplug, Node
from my_driver import states


class MyDriver(Driver):
    kinds = (states.KIND,)
    flashes = False  # there is no firmware to write between two reservations

    async def events(self) -> AsyncIterator[Hotplug]:
        yield Hotplug("add", "MY-1", Node("gpio", "/dev/null"))
        await asyncio.Event().wait()
