"""A plugged-in device as its states see it: its nodes, its port, and a way to tell its holder something."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fieldstation.fleet.driver import PARTITION, TTY, Driver, Node
from fieldstation.fleet.errors import FleetError
from fieldstation.fleet.model import Health
from fieldstation.fleet.port import Port
from fieldstation.fleet.power import usb_place
from fieldstation.fleet.states.care import Care

log = logging.getLogger(__name__)

Item = dict[str, Any]
SERIAL_INTERFACE = "00"  # a board may show more than one tty; this is the one that its firmware talks on


class DeviceBrokenError(FleetError):
    """The device {serial} does not work: {reason}."""


class DeviceEventSender:
    """Sends events about one device to whoever holds it. Its methods may be called from any thread."""

    def __init__(self, post: Callable[[list[Item]], None], loop: asyncio.AbstractEventLoop) -> None:
        self._post = post
        self._loop = loop
        self._thread = threading.get_ident()

    def sendDeviceEvent(self, name: str, contents: Mapping[str, Any]) -> None:
        """Send one event; the key `event` of `contents` is overwritten with `name`."""
        self.sendDeviceEvents([(name, contents)])

    def sendDeviceEvents(self, events: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Send several events (name, contents) as one message; the client handles them in this order."""
        items = [{**contents, "event": name} for name, contents in events]
        if threading.get_ident() == self._thread:
            self._post(items)
        else:
            self._loop.call_soon_threadsafe(self._post, items)

    def sendDeviceInitialized(self) -> None:
        """Tell the holder that the device takes requests now."""
        self.sendDeviceEvent("initialized", {})

    def sendDeviceReservationEnd(self) -> None:
        """Tell the holder that the reservation is over."""
        self.sendDeviceEvent("reservation end", {})

    def sendDeviceFailure(self) -> None:
        """Tell the holder that the device is lost."""
        self.sendDeviceEvent("failure", {})


class Device:
    """One device on this worker. Lives from its first node until it has had none for a while.

    `config` is the worker's configuration. `nodes` maps path to Node, in the order in which they appeared.
    `firmware` is the name of what was last written to it here, None when that is not known.
    """

    def __init__(
        self,
        serial: str,
        driver: Driver,
        post: Callable[[list[Item]], None],
        config: object = None,
        care: Care | None = None,
    ) -> None:
        self.serial = serial
        self.driver = driver
        self.config = config
        self.health = Health.OK
        self.reason = ""
        self.failures = 0  # in a row, since it was last ready
        self.at_fault = True  # whether the last failure was the board's own, and not the configuration's or a bug
        self.firmware: str | None = None
        self.care = care or Care(serial)
        self.nodes: dict[str, Node] = {}
        self.events = DeviceEventSender(post, asyncio.get_running_loop())
        self.logger = logging.LoggerAdapter(log, {"fields": {"device": serial}})
        self._changed = asyncio.Event()

    def add(self, node: Node) -> None:
        """Note a node that appeared."""
        self.nodes[node.path] = node
        self.care.place = usb_place(node.properties.get("DEVPATH", "")) or self.care.place
        self._changed.set()

    def forget(self, path: str) -> None:
        """Note that a node went away, or is about to."""
        self.nodes.pop(path, None)
        self._changed.set()

    def find(self, *kinds: str, interface: str | None = None) -> Node | None:
        """Return the newest node of one of these kinds; `interface` leaves out those of other USB interfaces."""
        fitting = (interface, None) if interface is not None else None
        found = [n for n in self.nodes.values() if n.kind in kinds and (fitting is None or n.interface in fitting)]
        return found[-1] if found else None

    async def node(self, *kinds: str, interface: str | None = None) -> Node:
        """Wait until there is such a node, and return it. Put a timeout around it."""
        while (found := self.find(*kinds, interface=interface)) is None:
            self._changed.clear()
            await self._changed.wait()
        return found

    @asynccontextmanager
    async def port(self) -> AsyncIterator[Port]:
        """Open the serial line as soon as it is there, tried as often as the driver's timing says."""
        timing = self.driver.timing
        problem: Exception | None = None
        for attempt in range(timing.open_tries):
            if attempt:
                await asyncio.sleep(timing.open_pause_s)
            try:
                async with asyncio.timeout(timing.replug_s):
                    opened = await self.driver.port(await self.node(TTY, interface=SERIAL_INTERFACE))
                break
            except TimeoutError as error:
                raise DeviceBrokenError(serial=self.serial, reason="its serial port did not appear") from error
            except OSError as error:
                problem = error
        else:
            reason = f"its serial port does not open ({problem})"
            raise DeviceBrokenError(serial=self.serial, reason=reason) from problem
        try:
            yield opened
        finally:
            opened.close()

    @property
    def present(self) -> bool:
        """True while the kernel shows any node of it."""
        return bool(self.nodes)

    @property
    def in_boot_loader(self) -> bool:
        """True while the boot loader's disk is there."""
        return self.find(PARTITION) is not None
