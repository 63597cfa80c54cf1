"""A driver without udev, boot loader, disk or root: each board was flashed once, by hand, and stays as it is.

What a reserved board does is Fieldstation's own state for the kind `pulsecount`: a driver only says how to reach it.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fieldstation.fleet.driver import TTY, Driver, Hotplug, Node, Timing
from fieldstation.fleet.port import Port
from fieldstation.fleet.states import pulsecount


class FixedPortsSettings(BaseModel):
    """The table `[fleet.worker.settings.pulse_count_ports]`."""

    model_config = ConfigDict(extra="forbid")

    ports: dict[str, Path] = Field(description="Serial of the board -> its port, such as /dev/serial/by-id/usb-...")
    look_s: float = Field(default=1.0, gt=0, description="How often to look whether the ports are there, in seconds.")


class FixedPortsDriver(Driver):
    kinds = (pulsecount.KIND,)
    flashes = False
    Settings = FixedPortsSettings
    timing = Timing(open_pause_s=0.5)

    def __init__(self, settings: FixedPortsSettings) -> None:
        self.settings = settings

    async def events(self) -> AsyncIterator[Hotplug]:
        there: dict[str, Node] = {}
        while True:
            for serial, path in self.settings.ports.items():
                if path.exists() and serial not in there:
                    there[serial] = Node(TTY, str(path))
                    yield Hotplug("add", serial, there[serial])
                elif serial in there and not path.exists():
                    yield Hotplug("remove", serial, there.pop(serial))
            await asyncio.sleep(self.settings.look_s)

    async def port(self, node: Node) -> Port:
        return Port.open(node.path, chunk_bytes=self.timing.chunk_bytes, pause_s=self.timing.chunk_pause_s)
