"""The devices of one worker: what is plugged in, which state each is in, and when one is gone."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fieldstation.core import log as logs
from fieldstation.fleet.driver import Driver, Hotplug
from fieldstation.fleet.holding import Held
from fieldstation.fleet.model import DeviceState, Health, OutOfService
from fieldstation.fleet.states.care import Care, CareSettings
from fieldstation.fleet.states.device import Device, DeviceBrokenError, Item
from fieldstation.fleet.states.lifecycle import OutOfServiceState, fresh
from fieldstation.fleet.states.machine import Factory, Machine
from fieldstation.fleet.states.recovery import BrokenState
from fieldstation.fleet.states.reservable import Kind

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Hosted:
    """One device with its machine. `lease` is the id of the lease it serves; `turn` counts how often one began."""

    device: Device
    machine: Machine
    driver: str
    kinds: tuple[str, ...]
    labels: Mapping[str, str]
    lease: str | None = None
    turn: int = 0
    absent: asyncio.TimerHandle | None = None
    reported: tuple[object, ...] = ()

    @property
    def serial(self) -> str:
        """The device's serial."""
        return self.device.serial

    @property
    def state(self) -> DeviceState:
        """What it does, as control shows it."""
        if self.lease is not None:
            return DeviceState.RESERVED
        current = self.machine.state
        return DeviceState.AWAIT_FLASH_DEFAULT if current is None else current.status

    def begin(self, wanted: Kind, held: Held) -> None:
        """Put it into the state that the lease wants."""
        self.lease = held.id
        about = {"fields": {"device": self.serial, "lease": held.id}}
        log.info("held by %s as %s, fence %d", held.client, held.kind, held.fences[self.serial], extra=about)
        self.turn += 1
        self.machine.become(functools.partial(wanted.build, args=held.args), blocking=wanted.state.blocking)

    def body(self, fence: int) -> dict[str, Any]:
        """Return the wire's device object."""
        return {
            "serial": self.serial,
            "driver": self.driver,
            "state": self.state.value,
            "health": self.device.health.value,
            "reason": self.device.reason,
            "kinds": list(self.kinds),
            "labels": dict(self.labels),
            "fence": fence,
        }


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the worker wants to hear of its devices. `lost` is told why a held device cannot serve its lease; `step`
    gets (serial, step, detail) for the device's history, `kept` what to remember of a serial's being out of service."""

    changed: Callable[[Hosted], None]
    gone: Callable[[Hosted], None]
    posted: Callable[[Hosted, list[Item]], None]
    lost: Callable[[Hosted, str], None]
    step: Callable[[str, str, str], None]
    kept: Callable[[str, OutOfService | None], None] = lambda serial, out: None


class Devices:
    """Takes what drivers report and keeps a machine running for each board that is there."""

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        hooks: Hooks,
        *,
        kinds: Callable[[str, Driver], tuple[str, ...]] = lambda _, driver: driver.kinds,
        labels: Mapping[str, str] | None = None,
        config: object = None,
        care: CareSettings | None = None,
        out_of_service: Mapping[str, OutOfService] | None = None,
    ) -> None:
        self._drivers = drivers
        self._hooks = hooks
        self._kinds = kinds
        self._labels = dict(labels or {})
        self._config = config
        self._care_settings = care or CareSettings()
        self._care: dict[str, Care] = {}  # by serial, for as long as the worker lives
        self._hosted: dict[str, Hosted] = {}
        self._group: asyncio.TaskGroup | None = None
        for serial, out in (out_of_service or {}).items():  # as an earlier process left it
            self.care(serial).out = out

    def get(self, serial: str) -> Hosted | None:
        """Return the device, or None when it is not here."""
        return self._hosted.get(serial)

    def all(self) -> list[Hosted]:
        """Return all devices, in the order in which they came."""
        return list(self._hosted.values())

    async def run(self) -> None:
        """Follow the drivers until cancelled; a driver that fails ends the worker with its error."""
        async with asyncio.TaskGroup() as self._group:
            for name, driver in self._drivers.items():
                self._group.create_task(self._follow(name, driver), name=f"driver {name}")

    async def _follow(self, name: str, driver: Driver) -> None:
        async for event in driver.events():
            self._hotplug(name, driver, event)

    def _hotplug(self, name: str, driver: Driver, event: Hotplug) -> None:
        hosted = self._hosted.get(event.serial)
        if hosted is None:
            if event.action == "add":
                hosted = self._host(event.serial, name, driver)
                hosted.device.add(event.node)
                hosted.machine.become(fresh)
            return
        hosted.machine.hotplug(event.action, event.node)
        self._look_after(hosted)

    def _host(self, serial: str, name: str, driver: Driver) -> Hosted:
        device = Device(
            serial, driver, lambda items: self._hooks.posted(hosted, items), self._config, self.care(serial)
        )
        machine = Machine(device, changed=lambda: self._changed(hosted), lost=lambda r, e: self._lost(hosted, r, e))
        hosted = Hosted(device, machine, name, self._kinds(name, driver), self._labels)
        self._hosted[serial] = hosted
        assert self._group is not None
        self._group.create_task(self._live(hosted), name=f"device {serial}")
        return hosted

    async def _live(self, hosted: Hosted) -> None:
        with logs.context(device=hosted.serial, lease=lambda: hosted.lease):
            await hosted.machine.run()

    def _changed(self, hosted: Hosted) -> None:
        self._look_after(hosted)
        self._hooks.changed(hosted)

    def _lost(self, hosted: Hosted, reason: str, error: BaseException) -> Factory:
        hosted.device.at_fault = isinstance(error, DeviceBrokenError)
        leased = hosted.lease is not None
        if leased:
            self._hooks.lost(hosted, reason)
        if hosted.device.care.out is not None or (leased and not hosted.device.at_fault):
            return fresh  # an operator has it; or the lease's state failed, which says nothing against the board
        hosted.device.health, hosted.device.reason = Health.BROKEN, reason
        return BrokenState

    def _look_after(self, hosted: Hosted) -> None:
        """Start or stop the clock of a device without nodes. While it is flashed or tested, that has its own clock."""
        state = hosted.state
        watched = state in (DeviceState.AVAILABLE, DeviceState.BROKEN, DeviceState.RESERVED)
        current = hosted.machine.state
        if hosted.device.present or not watched or (current is not None and current.keeps):
            if hosted.absent is not None:
                hosted.absent.cancel()
                hosted.absent = None
        elif hosted.absent is None:
            timing = hosted.device.driver.timing
            loop = asyncio.get_running_loop()
            if state is DeviceState.RESERVED:
                hosted.absent = loop.call_later(timing.replug_s, self._missed, hosted)
            else:
                hosted.absent = loop.call_later(timing.gone_s, self.forget, hosted)

    def _missed(self, hosted: Hosted) -> None:
        hosted.absent = None
        hosted.machine.fail(DeviceBrokenError(serial=hosted.serial, reason="it was unplugged"))

    def care(self, serial: str) -> Care:
        """Return what is known of a serial's recoveries, whether or not it is plugged in."""
        if serial not in self._care:
            say, keep = (functools.partial(hook, serial) for hook in (self._hooks.step, self._hooks.kept))
            self._care[serial] = Care(serial, self._care_settings, say, keep)
        return self._care[serial]

    def reunite(self, listed: Mapping[str, Mapping[str, Any]]) -> None:
        """Take control's word for which devices are out of service, after a hello.

        What was quarantined here stays so: control knows it from the hello, or will from the next report.
        """
        for serial, body in listed.items():
            self.set_service(serial, str(body.get("health")), str(body.get("reason", "")))
        for serial, care in self._care.items():
            if care.out is not None and care.out.health is Health.MAINTENANCE and serial not in listed:
                self.set_service(serial, None)

    def set_service(self, serial: str, health: str | None, reason: str = "") -> None:
        """Take a device out of service, or put it back (None). A leased one is left to its holder until that ends."""
        care = self.care(serial)
        # Whatever word a newer control has for it, to leave the device alone is the right thing.
        known = Health.QUARANTINED if health == Health.QUARANTINED else Health.MAINTENANCE
        out = None if health is None else OutOfService(known, reason)
        if care.out == out:
            return
        if out is None:
            care.put_back()
        else:
            care.take_out(out)
        hosted = self._hosted.get(serial)
        if hosted is not None and hosted.lease is None:
            if isinstance(hosted.machine.state, OutOfServiceState):
                hosted.device.health, hosted.device.reason = Health.DEGRADED, ""
            hosted.machine.become(fresh)

    def forget(self, hosted: Hosted) -> None:
        """End a device's machine and drop it; nodes that come later make it a new one."""
        if hosted.absent is not None:
            hosted.absent.cancel()
        if self._hosted.get(hosted.serial) is hosted:
            del self._hosted[hosted.serial]
            hosted.machine.close()
            self._hooks.gone(hosted)

    def begin_again(self, hosted: Hosted) -> None:
        """Forget a device, and take it up anew when it is still plugged in."""
        nodes = list(hosted.device.nodes.values())
        self.forget(hosted)
        if nodes:
            again = self._host(hosted.serial, hosted.driver, hosted.device.driver)
            for node in nodes:
                again.device.add(node)
            again.machine.become(fresh)
