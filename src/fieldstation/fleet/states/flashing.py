"""Write a firmware to a board: touch, wait for the boot loader's disk, copy the file, until it worked or time is up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from fieldstation.core.retry import Backoff
from fieldstation.fleet.driver import PARTITION, TTY, Node
from fieldstation.fleet.errors import FleetError
from fieldstation.fleet.model import Health
from fieldstation.fleet.states.device import Device, DeviceBrokenError

T = TypeVar("T")

DISK_FILES = frozenset({"INDEX.HTM", "INFO_UF2.TXT"})


class WrongDiskError(FleetError):
    """The disk {path} is not a boot loader's: it holds {found}."""


async def flash(device: Device, name: str) -> None:
    """Write the firmware `name` ("default" or a kind); the board then restarts into it and its tty appears anew.

    A board of a driver that does not flash has its firmware already. Raises DeviceBrokenError after `timing.flash_s`.
    """
    if not device.driver.flashes:
        return
    image = await device.driver.firmware(name)
    device.firmware = None
    problem: object = "no device node appeared"
    try:
        async with asyncio.timeout(device.driver.timing.flash_s):
            for pause_s in Backoff(initial_s=0.02, ceiling_s=2.0):
                try:
                    disk = await _boot_loader(device)
                    await uninterrupted(_write(device, disk, image))
                    device.firmware = name
                    return
                except TimeoutError as error:
                    problem = "the boot loader's disk did not appear" if not str(error) else error
                except (OSError, FleetError) as error:
                    problem = error
                device.health, device.reason = Health.DEGRADED, f"flashing needed another try: {problem}"
                device.logger.log(logging.WARNING, "flashing %s failed, trying again: %s", name, problem)
                await asyncio.sleep(pause_s)
    except TimeoutError as error:
        limit = device.driver.timing.flash_s
        reason = f"it could not be flashed with {name} within {limit:g} s: {problem}"
        raise DeviceBrokenError(serial=device.serial, reason=reason) from error


async def _boot_loader(device: Device) -> Node:
    node = await device.node(PARTITION, TTY)
    if not device.in_boot_loader:
        device.logger.debug("sending bootloader signal to %s", node.path)
        await device.driver.touch(node)
    async with asyncio.timeout(device.driver.timing.touch_s):
        disk = await device.node(PARTITION)
    # The line to the old firmware is dead; what appears from now on belongs to the new one.
    for stale in [n.path for n in device.nodes.values() if n.kind == TTY]:
        device.forget(stale)
    return disk


async def _write(device: Device, disk: Node, image: bytes) -> None:
    async with device.driver.drive(disk) as directory, asyncio.timeout(device.driver.timing.copy_s):
        await asyncio.to_thread(_copy, directory, image)
    # The board restarts now; whoever looks for its disk before the kernel says so must not find it.
    device.forget(disk.path)


def _copy(directory: Path, image: bytes) -> None:
    found = {entry.name for entry in directory.iterdir()}
    if found != DISK_FILES:
        raise WrongDiskError(path=directory, found=", ".join(sorted(found)) or "nothing")
    with (directory / "firmware.uf2").open("wb", buffering=0) as file:
        # Not synced here: the board restarts with the last block, and a sync of a disk that is gone looks like a failed
        # copy. Unmounting writes it out.
        file.write(image)


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work` to its end, although the caller is cancelled meanwhile; the cancellation goes on then.

    A copy that is cancelled half way goes on in its thread, and the next flash would write into the middle of it; a hub
    that is stopped half way leaves the power off.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()
