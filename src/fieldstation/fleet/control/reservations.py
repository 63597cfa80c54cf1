"""What clients ask for: reserve, wait, extend, end, reboot, delete. Each method authorises the one who acts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Principal, Role, authorize
from fieldstation.fleet.control.leases import Leases
from fieldstation.fleet.control.record import Record
from fieldstation.fleet.control.waiting import Place, Queue
from fieldstation.fleet.errors import DeviceBusyError, NotEnoughDevicesError, NotHeldError, UnknownKindError
from fieldstation.fleet.model import Device, Holder, Row, Step, WorkerState
from fieldstation.fleet.schedule import Waiting, Want, choose
from fieldstation.fleet.store.ledger import Entry

WAIT_LIMIT_S = 15.0
REMEMBER_S = 30.0
LOOK_S = 1.0  # how often we look whether those who wait have hung up

Gone = Callable[[], Awaitable[bool]]  # tells whether the one who asked has hung up


async def _stays() -> bool:
    return False


class Reservations:
    """The holder is always (the acting user, the client name the program gave itself)."""

    def __init__(
        self,
        record: Record,
        leases: Leases,
        queue: Queue,
        *,
        settled: asyncio.Event,
        length: Callable[[Principal, float | None], float],
        command_s: float,
    ) -> None:
        self.record = record
        self.index = record.index
        self.leases = leases
        self.queue = queue
        self.settled = settled
        self.length = length
        self.command_s = command_s
        # Answers to tickets: an answer that was lost on the way is given again instead of a second lease.
        self._served: dict[tuple[Holder, str], tuple[float, list[Row]]] = {}

    def forget(self) -> None:
        """Forget the answers given: another control leads."""
        self._served.clear()

    async def reserve(self, principal: Principal, want: Want, args: Mapping[str, Any]) -> list[Row]:
        """Lease devices now, all that are wanted or none. Those who wait in the queue come first."""
        authorize(principal, Role.USER, "reserving devices")
        length_s = self.length(principal, want.for_s)
        if want.needed:
            await self._settle(want)
        self._check(want)
        if not want.needed:
            return []
        async with self.record.lock:
            free = self.queue.free()
            serials = choose(want, free, self.index.busy())
            if serials is None:
                raise self._shortage(want, free)
            rows = await self.leases.take(want, serials, args, length_s)
        await self.leases.deliver(rows)
        return rows

    async def _settle(self, want: Want) -> None:
        """A moment after we began to lead the workers are still on their way; that is no reason to refuse."""
        if not self.settled.is_set() and choose(want, self.queue.free(), self.index.busy()) is None:
            await self.settled.wait()

    async def wait(
        self,
        principal: Principal,
        want: Want,
        args: Mapping[str, Any],
        *,
        wait_s: float,
        ticket: str | None = None,
        leave: bool = False,
        gone: Gone = _stays,
    ) -> list[Row] | Place:
        """Stand in the queue for at most `wait_s` (and 15) seconds; the answer is the rows, or the place to come
        back to with its ticket. With `leave` the place is given up when that time is over."""
        authorize(principal, Role.USER, "reserving devices")
        length_s = self.length(principal, want.for_s)
        self._check(want)
        if not want.needed:
            return []
        if ticket is not None:
            if (served := self._again(want.holder, ticket)) is not None:
                return served
            await self._unanswered(want.holder, ticket)
        place = self.queue.enter(want, ticket)
        deadline = time.monotonic() + min(max(wait_s, 0.0), WAIT_LIMIT_S)
        self.queue.hold(place, 1)
        try:
            while True:
                turn = self.queue.turn(place)
                if (rows := await self._try(place, args, length_s, gone)) is not None:
                    return rows
                if not self.queue.stands(place):  # another request with this ticket was served
                    return self._again(want.holder, place.ticket) or self.queue.describe(place)
                if self.queue.closed:
                    return self.queue.describe(place)
                left_s = deadline - time.monotonic()
                try:
                    async with asyncio.timeout(min(left_s, LOOK_S)):
                        await turn.wait()
                except TimeoutError:
                    hung_up = await gone()
                    if hung_up and ticket is None:
                        self.queue.leave(place)  # nobody was ever told the ticket to come back with
                    if hung_up or left_s <= LOOK_S:
                        return self.queue.describe(place)
        finally:
            self.queue.hold(place, -1)
            # A broken line may have brought the same ticket back already; one who does not wait at all means it.
            if leave and not (wait_s and self.queue.holds(place)):
                self.queue.leave(place)

    async def _unanswered(self, holder: Holder, ticket: str) -> None:
        """A leader before us served this ticket and its answer was lost: nobody has that lease's token."""
        lost = [
            serial
            for holding in self.index.holdings.values()
            if holding.lease.holder == holder and holding.lease.ticket == ticket
            for serial in holding.lease.fences
        ]
        if lost:
            await self.leases.end(lost, "the answer to its request was lost", tell=())

    async def _try(self, place: Waiting, args: Mapping[str, Any], length_s: float, gone: Gone) -> list[Row] | None:
        want, ticket = place.want, place.ticket
        if place.order not in self.queue.plan().grants:
            return None
        if await gone():
            # Nobody is there to take the devices: the next in the queue gets them, not a place that may never be
            # asked for again. Unless the same ticket is already back with another request.
            if self.queue.holds(place) == 1:
                self.queue.leave(place)
            return None
        async with self.record.lock:
            serials = self.queue.plan().grants.get(place.order)
            if serials is None:
                return None
            rows = await self.leases.take(want, serials, args, length_s, ticket)
            now = time.monotonic()
            self._served[want.holder, ticket] = now, rows
            self.record.counts.grants += 1
            self.record.counts.waited_s += now - place.since
            self.queue.leave(place)
        try:
            await self.leases.deliver(rows)
        except BaseException:
            self._served.pop((want.holder, ticket), None)
            raise
        return rows

    def _again(self, holder: Holder, ticket: str) -> list[Row] | None:
        now = time.monotonic()
        self._served = {key: value for key, value in self._served.items() if now - value[0] < REMEMBER_S}
        served = self._served.get((holder, ticket))
        return None if served is None else served[1]

    async def extend(
        self, principal: Principal, name: str, serials: Sequence[str] | None, for_s: float | None = None
    ) -> list[str]:
        """Extend the holder's leases on `serials` (None: all); those of others are left out. NotHeldError: none."""
        authorize(principal, Role.USER, "extending reservations")
        length_s = self.length(principal, for_s)
        holder = Holder(principal.user, name)
        held = self.index.held_by(holder)
        wanted = held if serials is None else [serial for serial in dict.fromkeys(serials) if serial in held]
        if not wanted:
            raise NotHeldError(client=name, serials="any device" if serials is None else ", ".join(serials))
        await self.leases.extend(wanted, holder, length_s)
        return wanted

    async def end(self, principal: Principal, name: str | None, serials: Sequence[str] | None) -> list[str]:
        """End the holder's leases on `serials` (None: all); those of others are left out.

        An operator ends anybody's, by serial: with the client's name as the panel shows it, or with None.
        """
        authorize(principal, Role.USER, "ending reservations")
        if name is None or serials is None:
            if name is None:
                authorize(principal, Role.OPERATOR, "ending other people's reservations")
            wanted = list(serials or ()) if name is None else self.index.held_by(Holder(principal.user, name))
        else:
            wanted = [serial for serial in serials if self._may_end(principal, name, serial)]
        return await self.leases.end(wanted, "ended", by=Holder(principal.user, name or ""))

    def _may_end(self, principal: Principal, name: str, serial: str) -> bool:
        holding = self.index.holding_of(serial)
        if holding is None or holding.lease.holder.client != name:
            return False
        return holding.lease.holder.user == principal.user or principal.role >= Role.OPERATOR

    async def clear(self, principal: Principal) -> None:
        """End all reservations of everybody (`/clear-workers`)."""
        authorize(principal, Role.OPERATOR, "ending everybody's reservations")
        await self.leases.end(list(self.index.lease_of), "cleared", by=Holder(principal.user, ""))

    async def reboot(self, principal: Principal, serials: Sequence[str]) -> list[str]:
        """Have workers reboot devices; returns those whose worker accepted. Holders may reboot what they hold."""
        authorize(principal, Role.USER, "rebooting devices")
        devices = self.index.known(serials)
        for device in devices:
            holding = self.index.holding_of(device.serial)
            if holding is None or holding.lease.holder.user != principal.user:
                authorize(principal, Role.OPERATOR, f"rebooting {device.serial}, which you do not hold,")
            if holding is None and device.serial in self.index.out_of_service:
                raise DeviceBusyError(serials=device.serial, reason=self._out_of_service(device), field="serials")
        return await self._command(principal, "reboot", devices)

    async def delete(self, principal: Principal, serials: Sequence[str]) -> list[str]:
        """Have workers forget devices that nobody holds (what is still plugged in comes back freshly flashed)."""
        authorize(principal, Role.OPERATOR, "deleting devices")
        devices = self.index.known(serials)
        if held := [device.serial for device in devices if device.serial in self.index.lease_of]:
            raise DeviceBusyError(serials=", ".join(held), reason="it is reserved; end the reservation first")
        lost = [device for device in devices if self.index.workers[device.worker].state is WorkerState.DEAD]
        for device in lost:  # there is no worker to ask, and its row would stay for ever
            self.record.forget_device(device.serial)
        done = await self._command(principal, "delete", [device for device in devices if device not in lost])
        if lost:
            for name in {device.worker for device in lost}:
                if not self.index.of_worker(name):
                    del self.index.workers[name]
            self.leases.changed()
        return [device.serial for device in devices if device in lost or device.serial in done]

    async def _command(self, principal: Principal, event: str, devices: Sequence[Device]) -> list[str]:
        if not devices:
            return []
        async with self.record.lock:
            await self.record.commit(lambda connection: None)  # proof that we lead, before anything moves
        calls = (self.leases.call(d.worker, event, {"serial": d.serial}, self.command_s) for d in devices)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, FieldstationError):
                raise answer
        done = [d.serial for d, answer in zip(devices, answers, strict=True) if not isinstance(answer, BaseException)]
        if done:
            self.record.audit(Entry(event, ",".join(done), principal.user))
        for serial in done:
            self.record.step(Step(serial, event, user=principal.user))
        return done

    def _check(self, want: Want) -> None:
        kinds = self.index.kinds()
        if want.kind not in kinds:
            raise UnknownKindError(kind=want.kind, known=", ".join(sorted(kinds)) or "none", field="kind")
        self.index.known(want.serials)

    def _shortage(self, want: Want, free: Sequence[Device]) -> FieldstationError:
        if want.serials:
            fitting = {device.serial for device in free if want.kind in device.kinds}
            missing = [serial for serial in want.serials if serial not in fitting]
            reasons = sorted({self._why_not(self.index.devices[serial], want.kind) for serial in missing})
            return DeviceBusyError(serials=", ".join(missing), reason="; ".join(reasons), field="serials")
        count = sum(want.kind in device.kinds for device in free)
        kept = sum(want.kind in self.index.devices[serial].kinds for serial in self.queue.plan().kept)
        others = f", {kept} more are kept for those who wait in the queue" if kept else ""
        return NotEnoughDevicesError(wanted=want.amount, kind=want.kind, free=count, others=others, field="amount")

    def _why_not(self, device: Device, kind: str) -> str:
        worker = self.index.workers[device.worker]
        if device.serial in self.index.lease_of:
            return "it is reserved"
        if kind not in device.kinds:
            return f"it does not offer {kind}"
        if worker.state is not WorkerState.ONLINE:
            return f"its worker {worker.name} is {worker.state}"
        if worker.draining:
            return f"its worker {worker.name} is shutting down"
        if device.serial in self.queue.plan().kept:
            return "others wait for it in the queue"
        if device.serial in self.index.out_of_service:
            return self._out_of_service(device)
        return f"it is {device.state}" + (f" ({device.reason})" if device.reason else "")

    @staticmethod
    def _out_of_service(device: Device) -> str:
        mend = f"`fieldstation fleet maintenance {device.serial} off` puts it back"
        return f"it is out of service, {device.health} ({device.reason}); {mend}"
