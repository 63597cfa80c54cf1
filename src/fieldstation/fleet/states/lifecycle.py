"""What a device goes through when nobody holds it: flash the default firmware, test it, be ready."""

from __future__ import annotations

import asyncio
import random

from fieldstation.core.retry import Backoff
from fieldstation.fleet.driver import Node
from fieldstation.fleet.model import DeviceState, Health
from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.device import Device, DeviceBrokenError
from fieldstation.fleet.states.flashing import flash

DEFAULT_BANNER = "default firmware"


def fresh(device: Device) -> AbstractState:
    """Return the state in which a device begins, and begins again after each lease."""
    if device.care.out is not None:
        return OutOfServiceState(device)
    return FlashState(device) if device.driver.flashes else ReadyState(device)


fresh.blocking = False  # type: ignore[attr-defined]  # tells the machine that building it never waits


class FlashState(AbstractState):
    """Writes the default firmware, so that nothing of the last holder is left."""

    status = DeviceState.FLASHING_DEFAULT
    blocking = False

    async def run(self) -> None:
        """Flash, then test."""
        await flash(self.device, "default")
        self.switch(TestState)


class TestState(AbstractState):
    """Looks for the default firmware's banner, again and again until its time is up."""

    __test__ = False  # not a test case, whatever pytest makes of the name
    status = DeviceState.TESTING
    blocking = False

    async def run(self) -> None:
        """Ready when the banner was seen."""
        if not await answers(self.device):
            limit_s = self.device.driver.timing.test_s
            reason = f"it did not say {DEFAULT_BANNER!r} within {limit_s:g} s"
            raise DeviceBrokenError(serial=self.serial, reason=reason)
        self.switch(ReadyState)


async def answers(device: Device) -> bool:
    """Say whether the default firmware's banner comes within `timing.test_s`, over as many looks as that allows."""
    timing = device.driver.timing
    try:
        async with asyncio.timeout(timing.test_s):
            for pause_s in Backoff(initial_s=timing.banner_s / 10, ceiling_s=timing.banner_s):
                if await _look(device, timing.banner_s):
                    break
                await asyncio.sleep(pause_s)
    except TimeoutError:
        return False
    return True


async def _look(device: Device, patience_s: float) -> bool:
    try:
        async with device.port() as port, asyncio.timeout(patience_s):
            while DEFAULT_BANNER not in await port.line():
                pass
    except Exception as error:
        device.logger.debug("no banner yet: %r", error)
        return False
    return True


class ReadyState(AbstractState):
    """Waits to be reserved, and looks now and then whether the board still answers.

    A lease takes the device out of this state, which ends a look that is under way: a leased device is never checked.
    A board that was unplugged meanwhile is flashed anew when it comes back.
    """

    status = DeviceState.AVAILABLE
    blocking = False

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        device.health, device.reason, device.failures = Health.OK, "", 0
        device.care.ready()
        self._was_gone = False

    async def run(self) -> None:
        """Check the board's health at the interval that the settings say, for boards that are flashed."""
        every_s = self.device.care.settings.check_s
        if every_s <= 0 or not self.device.driver.flashes:
            return
        await asyncio.sleep(every_s * random.random())  # a worker's boards are not all looked at together
        while True:
            if self.device.present and not await answers(self.device) and self.device.present:
                reason = (
                    f"it failed a health check: no {DEFAULT_BANNER!r} within {self.device.driver.timing.test_s:g} s"
                )
                raise DeviceBrokenError(serial=self.serial, reason=reason)
            await asyncio.sleep(every_s)

    def handleAdd(self, dev: Node) -> None:
        """Distrust a board that was away."""
        if self._was_gone:
            self.switch(fresh)

    def handleRemove(self, dev: Node) -> None:
        """Remember that nothing of it was left."""
        self._was_gone = self._was_gone or not self.device.present


class OutOfServiceState(AbstractState):
    """Leaves the board alone, whatever happens to it: a person may be working on it."""

    status = DeviceState.BROKEN
    blocking = False

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        if device.care.out is not None:
            device.health, device.reason = device.care.out.health, device.care.out.reason
        device.firmware = None
