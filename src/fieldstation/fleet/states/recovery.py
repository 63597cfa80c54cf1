"""A device that failed climbs the recovery ladder: `ladder` decides, the states here carry it out."""

from __future__ import annotations

import asyncio

from fieldstation.fleet.driver import Node
from fieldstation.fleet.ladder import Rung, pause_s
from fieldstation.fleet.model import DeviceState, Health
from fieldstation.fleet.power import PowerCycleError
from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.device import Device, DeviceBrokenError
from fieldstation.fleet.states.flashing import uninterrupted
from fieldstation.fleet.states.lifecycle import TestState, fresh


class BrokenState(AbstractState):
    """Waits a while, then takes the next step of the ladder; at once when somebody plugs the board in again.

    A failure that is not the board's (a firmware file that is missing, a mistake in a state) climbs nothing: it is
    tried again for ever.
    """

    status = DeviceState.BROKEN
    blocking = False

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        device.health = Health.BROKEN
        device.failures += 1
        device.care.broken(device.reason)
        # A board that vanished while we worked on it may only need its power cut: it is not forgotten before that.
        self.keeps = device.at_fault and self._next() is Rung.POWER_CYCLE

    def _next(self) -> Rung:
        device = self.device
        possible: set[Rung] = set()
        if device.present and device.driver.flashes:
            possible.add(Rung.REFLASH)
        if device.present and (device.firmware == "default" or not device.driver.flashes):
            possible.add(Rung.RETRY)
        return device.care.next(possible)

    async def run(self) -> None:
        """Take one step, or end in quarantine."""
        device = self.device
        wait_s = pause_s(device.driver.timing.retry_s, device.failures)
        if not device.at_fault:
            await asyncio.sleep(wait_s)
            self.switch(fresh)
        elif self._next() is Rung.QUARANTINE:
            if device.present:  # a board that is gone is forgotten instead
                device.care.quarantine(device.reason)
                self.switch(fresh)
        else:
            await asyncio.sleep(wait_s)
            self._climb(self._next())

    def _climb(self, rung: Rung) -> None:
        if rung is Rung.POWER_CYCLE:
            self.switch(PowerCycleState)
        elif rung is Rung.RETRY and self.device.driver.flashes:
            self.device.care.try_rung(rung, "")
            self.switch(TestState)
        elif rung is not Rung.QUARANTINE:
            self.device.care.try_rung(rung, "")
            self.switch(fresh)

    def handleAdd(self, dev: Node) -> None:
        """Somebody plugged it in again."""
        self.device.care.note("plugged in", "")
        self.switch(fresh)

    def reboot(self) -> None:
        """Try anew at once."""
        self.switch(fresh)


class PowerCycleState(AbstractState):
    """Has the hub cut the board's power and waits for the board to come back; then it is flashed."""

    status = DeviceState.BROKEN
    blocking = False
    keeps = True

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._came = asyncio.Event()

    async def run(self) -> None:
        """Cut, wait, flash."""
        care = self.device.care
        assert care.settings.power is not None
        care.try_rung(Rung.POWER_CYCLE, "")
        try:
            done = await uninterrupted(care.settings.power.cycle(self.serial, care.place))
        except PowerCycleError as error:
            # Why the board is broken stays its reason; a hub that does not switch is no fault of it.
            care.note("power cycle failed", str(error.fields["problem"]))
            raise DeviceBrokenError(serial=self.serial, reason=self.device.reason) from error
        self.logger.info("power was cycled with: %s", done)
        try:
            async with asyncio.timeout(care.settings.back_s):
                await self._came.wait()
        except TimeoutError as error:
            if not self.device.present:
                reason = f"it did not come back within {care.settings.back_s:g} s of a power cycle"
                raise DeviceBrokenError(serial=self.serial, reason=reason) from error
        self.switch(fresh)

    def handleAdd(self, dev: Node) -> None:
        """It is back."""
        self._came.set()
