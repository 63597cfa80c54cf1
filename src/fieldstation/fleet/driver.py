"""What a worker needs of a driver: which boards come and go, their boot loader, their disk, their port.

A driver knows how to reach boards of one make. What a board is made to do (flash, test, evaluate) are states, and
those are the same for every driver.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from fieldstation.fleet.errors import FleetError
from fieldstation.fleet.port import Port


class NoFirmwareError(FleetError):
    """There is no firmware for {name}: {problem}."""


TTY = "tty"  # a serial line to the running firmware
PARTITION = "partition"  # the boot loader's disk


@dataclass(frozen=True, slots=True)
class Node:
    """One device node of a board: `kind` is TTY or PARTITION (or a driver's own word), `path` its file under /dev.

    `interface` is the USB interface number as text (the serial line is "00"). `properties` are the kernel's, such as
    DEVNAME and ID_SERIAL_SHORT; `node["DEVNAME"]` reads them.
    """

    kind: str
    path: str
    interface: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.properties[name]

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the kernel's property `name`."""
        return self.properties.get(name, default)


@dataclass(frozen=True, slots=True)
class Hotplug:
    """A node of the board `serial` appeared (`add`) or went away (`remove`)."""

    action: Literal["add", "remove"]
    serial: str
    node: Node


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient a driver's boards make their states. All in seconds, except `chunk_bytes` and counts.

    The defaults are those of the pico2-ice on USB; an instant board sets the pauses to 0.
    """

    flash_s: float = 60.0  # for all tries of one flash together
    touch_s: float = 10.0  # from the boot-loader touch to its disk; then it is touched again
    copy_s: float = 15.0  # to write the firmware file
    mount_s: float = 10.0  # to mount the disk, and to unmount it
    test_s: float = 30.0  # for the default firmware to answer, over all looks
    banner_s: float = 2.0  # one look for `default firmware`
    open_tries: int = 5
    open_pause_s: float = 2.0  # between tries to open the serial port
    settle_s: float = 2.0  # at most, for a fresh firmware to say that it waits for a bitstream
    chunk_bytes: int = 512
    chunk_pause_s: float = 10e-6
    answer_s: float = 10.0  # from the last byte of a bitstream to its result
    transfer_s: float = 10.0  # to write one bitstream
    replug_s: float = 10.0  # for a reserved board that vanished to come back
    gone_s: float = 2.0  # for an unreserved board without any node to be forgotten
    retry_s: float = 30.0  # before a broken board is tried again; doubles up to 20 times this


class Driver(abc.ABC):
    """Reaches boards of one make. Registered as an entry point in the group `fieldstation.drivers`.

    `kinds` are the reservable kinds its boards can serve. `flashes` says whether a board is reset by writing the
    default firmware; without, a board is available as soon as it is there. `Settings`, when set, is a pydantic model;
    the driver is then built with an instance of it, otherwise without arguments.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    flashes: ClassVar[bool] = True
    Settings: ClassVar[type[Any] | None] = None
    timing: Timing = Timing()

    @abc.abstractmethod
    def events(self) -> AsyncIterator[Hotplug]:
        """Yield what is plugged in now as `add`, then every change, for as long as the worker lives."""

    async def touch(self, node: Node) -> None:
        """Ask the board behind this tty to start its boot loader; its disk then appears as an event."""
        raise NotImplementedError(f"{type(self).__name__} has no boot loader")

    def drive(self, node: Node) -> AbstractAsyncContextManager[Path]:
        """Mount the boot loader's disk for the length of the block and give its directory."""
        raise NotImplementedError(f"{type(self).__name__} has no boot loader")

    async def port(self, node: Node) -> Port:
        """Open the serial line; raises OSError when that is not possible (yet)."""
        raise NotImplementedError(f"{type(self).__name__} has no serial port")

    async def firmware(self, name: str) -> bytes:
        """Return the UF2 image `name`: "default" or a kind. Raises NoFirmwareError."""
        raise NotImplementedError(f"{type(self).__name__} has no firmware")
