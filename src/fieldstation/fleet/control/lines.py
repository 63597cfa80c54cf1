"""Control's side of the line to each worker: who is there, what they report, and when one is unreachable or dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from fieldstation.core.errors import StoreError
from fieldstation.core.security import Principal, Role, authorize
from fieldstation.fleet.control import told as say
from fieldstation.fleet.control.background import Background
from fieldstation.fleet.control.care import Care
from fieldstation.fleet.control.leases import Leases
from fieldstation.fleet.control.probe import refuses
from fieldstation.fleet.control.record import Record
from fieldstation.fleet.errors import BadRequestError, FleetError
from fieldstation.fleet.model import Device, DeviceState, Health, Step, Worker, WorkerState
from fieldstation.fleet.store.ledger import Entry

log = logging.getLogger(__name__)

BEATS_OF_ONE = 1.5  # a worker of the same name and address that was not heard for so long may have been restarted
GRIEF = (say.FAILURE, say.END)  # what holders hear of a lost device, as today's control tells it


class NameTakenError(FleetError):
    """Another worker at {url} is connected under the name {name}. Give each worker a name of its own (--name)."""


@dataclass(slots=True)
class Line:
    """An open line: which connection it is and when the worker was last heard."""

    connection: str
    heard_at: float


class Lines:
    """Workers come, report, and go. Reports change memory at once and in the order they arrive."""

    def __init__(
        self,
        record: Record,
        leases: Leases,
        background: Background,
        changed: Callable[[], None],
        *,
        beat_s: float,
        silent_beats: int,
        probe_s: float,
        dead_after_s: float,
        return_s: float,
        care: Care,
        probe: Callable[[str], Awaitable[bool]] = refuses,
    ) -> None:
        self.record = record
        self.index = record.index
        self.leases = leases
        self.background = background
        self.changed = changed
        self.beat_s = beat_s
        self.silent_s = beat_s * silent_beats
        self.probe_s = probe_s
        self.dead_after_s = dead_after_s
        self.return_s = return_s
        self.care = care
        self.probe = probe
        self.open: dict[str, Line] = {}
        self._watched: set[str] = set()
        self._absent: set[str] = set()  # leased devices that a restarted worker has not found yet
        self._away: set[str] = set()  # devices that are to be forgotten once their leases have ended on disk
        self.expected: set[str] = set()  # workers that were online under the leader before us
        self.settled = asyncio.Event()

    def clear(self) -> None:
        """Forget all lines."""
        for known in (self.open, self._watched, self._absent, self._away, self.expected):
            known.clear()
        self.settled.set()  # who waits shall find out that we do not lead
        self.settled.clear()

    async def settle(self, at_most_s: float) -> None:
        """Wait until the workers of the leader before us are here: before that, devices seem to be missing."""
        if self.expected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    await self.settled.wait()
        self.settled.set()

    def hello(
        self,
        principal: Principal,
        connection: str,
        worker: Worker,
        devices: Sequence[Device],
        known_leases: Sequence[str],
    ) -> Mapping[str, Any]:
        """A worker is there, with all it has. The answer holds all leases that control knows on it."""
        authorize(principal, Role.OPERATOR, "serving as a worker")
        before, line = self.index.workers.get(worker.name), self.open.get(worker.name)
        now = time.monotonic()
        if line is not None and before is not None and line.connection != connection:
            self._refuse_another(before, worker, now - line.heard_at)
        self.open[worker.name] = Line(connection, now)
        self.expected.discard(worker.name)
        if not self.expected:
            self.settled.set()
        worker = replace(worker, state=WorkerState.ONLINE, seen_at=datetime.now(UTC))
        if before is None or before.state is not WorkerState.ONLINE or before.boot != worker.boot:
            self.record.audit(Entry("worker online", worker.name, principal.user, detail=worker.url))
            log.info("worker %s is online at %s with %d devices", worker.name, worker.url, len(devices))
        self.record.set_worker(worker)
        missing = {device.serial for device in self.index.of_worker(worker.name)} - {d.serial for d in devices}
        for device in devices:
            try:
                self._report(worker.name, device, trusted=True)
            except BadRequestError as error:  # one device in two places must not keep a whole worker out
                log.error("a device of worker %s is left out: %s", worker.name, error)
        restarted = before is None or before.boot != worker.boot
        for serial in missing:
            if restarted and serial in self.index.lease_of:
                self.background.start(self._await_return(worker.name, serial), f"return of {serial}")
            else:
                self._gone(serial, "its worker came back without it")
        for holding in self.index.holdings_on(worker.name):
            # The worker tells afresh who presents what, right after this.
            holding.sockets = 0
            holding.idle_since = None if self.index.connected(holding) or not holding.noted else now
        self.changed()
        log.debug("worker %s knows %d leases", worker.name, len(known_leases))
        current = [self.leases.as_line(holding) for holding in self.index.holdings_on(worker.name)]
        return {"leases": current, "beat_s": self.beat_s, "out_of_service": self.care.listed()}

    def _refuse_another(self, before: Worker, worker: Worker, unheard_s: float) -> None:
        """Keep two workers of one name apart: the one that is heard has it. The same address alone proves nothing, it
        may be that of a router; a restarted worker is another process too, but the one before it beats no more."""
        same = before.url == worker.url and (before.boot == worker.boot or unheard_s > BEATS_OF_ONE * self.beat_s)
        if before.state is WorkerState.ONLINE and not same:
            raise NameTakenError(name=worker.name, url=before.url)

    async def _await_return(self, worker: str, serial: str) -> None:
        """A restarted worker finds its devices one by one: a leased one fails only when it stays away."""
        lease = self.index.lease_of[serial]
        self._absent.add(serial)
        await asyncio.sleep(self.return_s)
        if serial in self._absent and self.index.lease_of.get(serial) == lease and worker in self.open:
            self._absent.discard(serial)
            self._gone(serial, "its worker came back without it")
            self.changed()

    def heard(self, worker: str, connection: str) -> None:
        """Any message proves that the worker lives."""
        line = self.open.get(worker)
        if line is None or line.connection != connection:
            raise BadRequestError(field="event", problem="say hello first")
        line.heard_at = time.monotonic()
        known = self.index.workers[worker]
        if known.state is not WorkerState.ONLINE:
            self.record.set_worker(replace(known, state=WorkerState.ONLINE, seen_at=datetime.now(UTC)))
            self.record.audit(Entry("worker online", worker, detail="heard again"))
            for holding in self.index.holdings_on(worker):
                if holding.idle_since is not None:  # its sockets may have come back while nothing was heard
                    holding.idle_since = line.heard_at
            self.changed()

    def report(self, worker: str, device: Device) -> None:
        """A device is there or has changed."""
        self._report(worker, device)
        self.changed()

    def _report(self, worker: str, device: Device, *, trusted: bool = False) -> None:
        known = self.index.devices.get(device.serial)
        device = self.care.seen(device, hello=trusted)
        self._absent.discard(device.serial)
        if known is not None and known.worker != worker:
            other = self.index.workers[known.worker]
            if other.state is WorkerState.ONLINE:
                raise BadRequestError(field="serial", problem=f"{device.serial} is at worker {other.name}")
            # It was carried over while its old worker was away.
            if device.serial in self.index.lease_of:
                self._fail(device.serial, f"it is now at worker {worker}")
        self._away.discard(device.serial)
        holding = self.index.holding_of(device.serial)
        fence = max(device.fence, self.index.fence_of(device.serial))
        if holding is not None and holding.lease.worker == worker:
            late = not trusted and device.fence < holding.lease.fences[device.serial]
            state = DeviceState.BROKEN if device.state is DeviceState.BROKEN and not late else DeviceState.RESERVED
        elif known is not None and known.state is DeviceState.AWAIT_FLASH_DEFAULT and device.fence < known.fence:
            # Sent before the worker heard of the lease that has just ended. A hello is newer than any lease.
            state = device.state if trusted else DeviceState.AWAIT_FLASH_DEFAULT
        elif device.state is DeviceState.RESERVED:
            state = DeviceState.AWAIT_FLASH_DEFAULT  # by a lease that control does not know: the worker will end it
        else:
            state = device.state
        self.record.set_device(replace(device, worker=worker, state=state, fence=fence))

    def step(self, worker: str, step: Step) -> None:
        """Something was done for a device."""
        self.record.step(step)

    def gone(self, worker: str, serial: str) -> None:
        """A device was unplugged or deleted."""
        device = self.index.devices.get(serial)
        if device is not None and device.worker == worker:
            self._gone(serial, "it was unplugged")
            self.changed()

    def _gone(self, serial: str, reason: str) -> None:
        if serial in self.index.lease_of:
            self._away.add(serial)
            self._fail(serial, reason)
        else:
            self.record.forget_device(serial)

    def _fail(self, serial: str, reason: str, *, tell: Sequence[str] = GRIEF) -> None:
        async def fail() -> None:
            while True:
                try:
                    await self.leases.end([serial], reason, tell=tell)
                    break
                except StoreError as error:  # the holder has lost it all the same: try until it is written
                    about = {"fields": {"lease": self.index.lease_of.get(serial)}}
                    log.error("cannot write that %s failed: %s", serial, error, extra=about)
                    await asyncio.sleep(1)
            # It may have come back while the database was away.
            if serial in self._away and serial not in self.index.lease_of:
                self._away.discard(serial)
                self.record.forget_device(serial)
                self.changed()

        self.background.start(fail(), f"failure of {serial}")

    def failed(self, worker: str, lease: str, serial: str, reason: str) -> None:
        """A device cannot serve its lease any more; the worker has told the holder `failure`."""
        holding = self.index.holdings.get(lease)
        if holding is None or holding.lease.worker != worker or serial not in holding.lease.fences:
            return
        device = self.index.devices.get(serial)
        if device is not None:
            self.record.set_device(replace(device, health=Health.BROKEN, reason=reason))
        self.record.audit(Entry("device failed", serial, worker, detail=reason))
        self._fail(serial, reason, tell=(say.END,))

    def presence(self, worker: str, lease: str, sockets: int) -> None:
        """So many sockets present the lease on the worker."""
        holding = self.index.holdings.get(lease)
        if holding is not None and holding.lease.worker == worker:
            holding.sockets = max(0, sockets)
            self.touch(lease)

    def touch(self, lease: str) -> None:
        """A socket of the lease's holder has come or gone: start, or stop, the grace time."""
        holding = self.index.holdings[lease]
        if self.index.connected(holding):
            holding.idle_since = None
            if not holding.noted:
                holding.noted = True
                self.record.note_socket(lease)
        elif holding.noted and holding.idle_since is None:
            holding.idle_since = time.monotonic()

    def draining(self, worker: str) -> None:
        """Nothing new may be reserved on the worker."""
        self.record.set_worker(replace(self.index.workers[worker], draining=True))
        self.record.audit(Entry("worker draining", worker, worker))
        self.changed()

    def lost(self, worker: str, connection: str) -> None:
        """The line is gone. Nothing is offered there; whether the worker is dead, its port tells."""
        line = self.open.get(worker)
        if line is not None and line.connection == connection:
            del self.open[worker]
            self.unreachable(worker)

    def unreachable(self, worker: str) -> None:
        """Offer nothing on a worker that does not speak, and find out whether it is dead."""
        known = self.index.workers[worker]
        if known.state is WorkerState.ONLINE:
            self.record.set_worker(replace(known, state=WorkerState.UNREACHABLE))
            self.record.audit(Entry("worker unreachable", worker))
            log.warning("worker %s is unreachable", worker)
            self.changed()
        if worker not in self._watched and worker not in self.open:
            self._watched.add(worker)
            self.background.start(self._watch(worker), f"watch of {worker}")

    async def _watch(self, worker: str) -> None:
        refused_since: float | None = None
        try:
            while worker not in self.open and self.index.workers[worker].state is not WorkerState.DEAD:
                if not await self.probe(self.index.workers[worker].url):
                    refused_since = None
                elif refused_since is None:
                    refused_since = time.monotonic()
                now = time.monotonic()
                if refused_since is not None and now - refused_since >= self.dead_after_s and worker not in self.open:
                    await self._bury(worker)
                    continue
                await asyncio.sleep(self.probe_s)
        finally:
            self._watched.discard(worker)

    async def _bury(self, worker: str) -> None:
        held = [device.serial for device in self.index.of_worker(worker) if device.serial in self.index.lease_of]
        try:
            await self.leases.end(held, f"the worker {worker} is dead", tell=GRIEF, release=False)
        except StoreError as error:
            log.error("cannot write that worker %s is dead: %s", worker, error)
            await asyncio.sleep(self.probe_s)
            return
        if worker in self.open:  # it came back meanwhile, and was told that these leases are over or still on
            return
        self.record.set_worker(replace(self.index.workers[worker], state=WorkerState.DEAD))
        self.record.audit(Entry("worker dead", worker, detail=f"{len(held)} reserved devices lost"))
        log.error("worker %s is dead: its line is gone and its port refuses", worker)
        self.changed()

    def notice_silence(self) -> None:
        """Workers whose line is open but who have not been heard for a while are unreachable."""
        now = time.monotonic()
        for worker, line in list(self.open.items()):
            if now - line.heard_at > self.silent_s and self.index.workers[worker].state is WorkerState.ONLINE:
                self.unreachable(worker)
