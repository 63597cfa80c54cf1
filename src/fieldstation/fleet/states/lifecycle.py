"""What a device goes through when nobody holds it: flash the default firmware, test it, be ready; or be broken."""

from __future__ import annotations

import asyncio

from fieldstation.core.retry import Backoff
from fieldstation.fleet.driver import Node
from fieldstation.fleet.model import DeviceState, Health
from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.device import Device, DeviceBrokenError
from fieldstation.fleet.states.flashing import flash

DEFAULT_BANNER = "default firmware"


def fresh(device: Device) -> AbstractState:
    """Return the state in which a device begins, and begins again after each lease."""
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
        timing = self.device.driver.timing
        try:
            async with asyncio.timeout(timing.test_s):
                for pause_s in Backoff(initial_s=timing.banner_s / 10, ceiling_s=timing.banner_s):
                    if await self._look(timing.banner_s):
                        break
                    await asyncio.sleep(pause_s)
        except TimeoutError as error:
            reason = f"it did not say {DEFAULT_BANNER!r} within {timing.test_s:g} s of being flashed"
            raise DeviceBrokenError(serial=self.serial, reason=reason) from error
        self.switch(ReadyState)

    async def _look(self, patience_s: float) -> bool:
        try:
            async with self.device.port() as port, asyncio.timeout(patience_s):
                while DEFAULT_BANNER not in await port.line():
                    pass
        except Exception as error:
            self.logger.debug("no banner yet: %r", error)
            return False
        return True


class ReadyState(AbstractState):
    """Waits to be reserved. A board that was unplugged meanwhile is flashed anew when it comes back."""

    status = DeviceState.AVAILABLE
    blocking = False

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        device.health, device.reason, device.failures = Health.OK, "", 0
        self._was_gone = False

    def handleAdd(self, dev: Node) -> None:
        """Distrust a board that was away."""
        if self._was_gone:
            self.switch(fresh)

    def handleRemove(self, dev: Node) -> None:
        """Remember that nothing of it was left."""
        self._was_gone = self._was_gone or not self.device.present


class BrokenState(AbstractState):
    """Does nothing until the board is plugged in again, or a while has passed; then tries anew."""

    status = DeviceState.BROKEN
    blocking = False

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        device.health = Health.BROKEN
        device.failures += 1

    async def run(self) -> None:
        """Try again after a pause that doubles with each failure."""
        pause = self.device.driver.timing.retry_s
        await asyncio.sleep(min(pause * 2 ** (self.device.failures - 1), 20 * pause))
        self.switch(fresh)

    def handleAdd(self, dev: Node) -> None:
        """Somebody plugged it in again."""
        self.switch(fresh)

    def reboot(self) -> None:
        """Try anew at once."""
        self.switch(fresh)
