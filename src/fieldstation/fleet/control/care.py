"""Devices out of service, and devices' histories: what operators decide, and what workers tell of recoveries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fieldstation.core.errors import FieldstationError, StoreError
from fieldstation.core.security import Principal, Role, authorize
from fieldstation.fleet.control.leases import Call
from fieldstation.fleet.control.record import Record
from fieldstation.fleet.errors import BadRequestError, NotLeaderError, UnknownSerialError, WorkerUnreachableError
from fieldstation.fleet.model import Device, Health, OutOfService, Step, WorkerState
from fieldstation.fleet.store import care as statements
from fieldstation.fleet.store.ledger import Entry

log = logging.getLogger(__name__)


class Care:
    """Control decides what is out of service and keeps it on disk; a worker hears it at once and at every hello."""

    def __init__(self, record: Record, call: Call, changed: Callable[[], None], *, command_s: float) -> None:
        self.record = record
        self.index = record.index
        self.call = call
        self.changed = changed
        self.command_s = command_s
        self._put_back: set[str] = set()  # until their worker reports them as anything but quarantined

    def seen(self, device: Device, *, hello: bool = False) -> Device:
        """A worker reports a device: note a quarantine that is news, and return what is to be known of the device."""
        serial = device.serial
        if hello or device.health is not Health.QUARANTINED:
            self._put_back.discard(serial)
        if device.health is not Health.QUARANTINED:
            return device
        if serial in self._put_back:  # sent before the worker heard of it
            return replace(device, health=Health.DEGRADED, reason="")
        if serial not in self.index.out_of_service:
            out = OutOfService(Health.QUARANTINED, device.reason, since=datetime.now(UTC))
            self.record.set_service(serial, out)
            self.record.audit(Entry("quarantined", serial, device.worker, detail=device.reason))
            log.warning("device %s is quarantined: %s", serial, device.reason)
        return device

    def listed(self) -> dict[str, dict[str, str]]:
        """Return what is out of service, as a worker is told after its hello."""
        found = self.index.out_of_service.items()
        return {serial: {"health": out.health.value, "reason": out.reason} for serial, out in found}

    async def maintenance(self, principal: Principal, serial: str, on: bool, reason: str) -> dict[str, Any]:
        """Take a device out of service, or put it back, a quarantined one too. A holder keeps it until the lease ends.

        The answer has `serial`, `health`, `reason`, and the holder's client name as `client`, or None.
        """
        authorize(principal, Role.OPERATOR, "taking devices out of service")
        if serial not in self.index.devices and serial not in self.index.out_of_service:
            raise UnknownSerialError(serials=serial, field="serial")
        if on and not reason.strip():
            raise BadRequestError(field="reason", problem="say why, so that others know")
        if on:
            out = OutOfService(Health.MAINTENANCE, reason.strip(), principal.user, datetime.now(UTC))
            await self._change(principal, serial, out)
            try:
                await self._tell(serial, out)
            except FieldstationError as error:
                log.warning("%s is in maintenance, and its worker will hear it at its next hello: %s", serial, error)
        elif serial in self.index.out_of_service:
            # The worker first: a quarantine that it still knows would be told again.
            await self._tell(serial, None)
            await self._change(principal, serial, None, reason.strip())
        device, holding = self.index.devices.get(serial), self.index.holding_of(serial)
        return {
            "serial": serial,
            "health": device.health.value if device is not None else "",
            "reason": device.reason if device is not None else "",
            "client": holding.lease.holder.client if holding is not None else None,
        }

    async def _tell(self, serial: str, out: OutOfService | None) -> None:
        device = self.index.devices.get(serial)
        if device is None:
            return
        worker = self.index.workers[device.worker]
        if worker.state is not WorkerState.ONLINE:
            known = self.index.out_of_service.get(serial)
            if known is not None and known.health is Health.QUARANTINED:
                raise WorkerUnreachableError(worker=worker.name, what=f"putting {serial} back")
            return  # it hears it at its next hello
        body = {"serial": serial, "health": None if out is None else out.health.value}
        await self.call(worker.name, "service", body | {"reason": "" if out is None else out.reason}, self.command_s)

    async def _change(self, principal: Principal, serial: str, out: OutOfService | None, reason: str = "") -> None:
        before = self.index.out_of_service.get(serial)
        detail = out.reason if out is not None else reason
        step = "maintenance off" if out is None else "maintenance on"
        self.record.set_service(serial, out)
        self._show(serial, out)
        try:
            self.record.step(Step(serial, step, detail, user=principal.user))
            self.record.audit(Entry(step, serial, principal.user, detail=detail))
            await self.record.flush()
        except (StoreError, NotLeaderError):
            self.record.set_service(serial, before)
            self._show(serial, before)
            raise

    def _show(self, serial: str, out: OutOfService | None) -> None:
        device = self.index.devices.get(serial)
        if device is None:
            return
        if out is None:
            self._put_back.add(serial)
            self.record.set_device(replace(device, health=Health.DEGRADED, reason=""))
        else:
            self._put_back.discard(serial)
            self.record.set_device(device)
        self.changed()

    async def history(
        self, principal: Principal, serial: str, limit: int, before: int | None = None
    ) -> list[dict[str, Any]]:
        """The history of one device, newest first: recoveries, quarantine, maintenance."""
        authorize(principal, Role.VIEWER, "reading the history")
        await self.record.flush()
        store = self.record.store
        rows = await store.transact(lambda connection: statements.read_history(connection, serial, limit, before))
        if not rows and before is None and serial not in self.index.devices:
            raise UnknownSerialError(serials=serial, field="serial")
        return rows
