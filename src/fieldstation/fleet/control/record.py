"""Control's memory and its database, changed together.

What decides who holds what is on disk before it is in memory. What workers report about their devices is written
along with the next transaction, or a moment later: a worker tells it all again when it says hello.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection

from fieldstation.core.errors import StoreError
from fieldstation.fleet.control.counts import Counts
from fieldstation.fleet.control.index import Index
from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.model import Device, DeviceState, OutOfService, Step, Worker
from fieldstation.fleet.store import Store, care, ledger
from fieldstation.fleet.store.ledger import Entry

T = TypeVar("T")

log = logging.getLogger(__name__)

FLUSH_S = 0.2
AUDIT_KEPT = 10_000  # lines, of the history too, that wait for a database that is away; some 3 MB
HISTORY_KEPT = 500  # lines of one device's history


class Record:
    """The index, the store, and one lock: whoever changes leases holds it from the decision to the commit."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = Index()
        self.counts = Counts()
        self.problem = ""  # why the last transaction failed, empty when it did not
        self.lock = asyncio.Lock()
        self._devices: set[str] = set()  # serials; what is written is what the index holds by then
        self._workers: dict[str, Worker] = {}
        self._sockets: set[str] = set()
        self._audit: list[Entry] = []
        self._audit_lost = 0
        self._doubtful = False
        self._steps: list[Step] = []
        self._service: dict[str, OutOfService | None] = {}
        self.history_kept = HISTORY_KEPT
        self._dirty = asyncio.Event()

    async def load(self) -> ledger.Contents:
        """Read what the database holds; NotLeaderError when that is not ours to act on."""
        return await self.store.transact(ledger.read)

    def clear(self) -> None:
        """Forget all, also what is not written: another control leads."""
        self.index.clear()
        self._devices.clear()
        self._workers.clear()
        self._sockets.clear()
        self._audit.clear()
        self._steps.clear()
        self._service.clear()
        self._dirty.clear()
        self._doubtful = False

    def set_device(self, device: Device) -> bool:
        """Enter what is known of a device; returns whether that is news. Being out of service hides its health."""
        if (out := self.index.out_of_service.get(device.serial)) is not None:
            device = replace(device, health=out.health, reason=out.reason)
        known = self.index.devices.get(device.serial)
        if known == device:
            return False
        if (entry := _news(known, device)) is not None:
            self.audit(entry)
        self.index.devices[device.serial] = device
        self.changed_devices([device.serial])
        return True

    def changed_devices(self, serials: Iterable[str]) -> None:
        """The index has news of these devices."""
        self._devices.update(serials)
        self._dirty.set()

    def forget_device(self, serial: str) -> None:
        """The device is gone. It must not be reserved."""
        if (device := self.index.devices.pop(serial, None)) is not None:
            self.index.gone[serial] = device.fence
            self.audit(Entry("device gone", serial, device.worker))
        self.changed_devices([serial])

    def set_worker(self, worker: Worker) -> None:
        """Enter what is known of a worker."""
        self.index.workers[worker.name] = worker
        self._workers[worker.name] = worker
        self._dirty.set()

    def note_socket(self, lease: str) -> None:
        """The holder of `lease` has a socket: the grace time counts from now on."""
        self._sockets.add(lease)
        self._dirty.set()

    @property
    def unwritten(self) -> int:
        """How many lines of the audit log are not on disk yet."""
        return len(self._audit)

    def audit(self, entry: Entry) -> None:
        """Write down what happened. While the database is away only so much is kept; what is dropped is counted, and
        the count is written."""
        if len(self._audit) >= AUDIT_KEPT:
            self.counts.audit_lost += 1
            self._audit_lost += 1
            log.error("not in the audit log, the database is away for too long: %s %s", entry.action, entry.target)
            return
        self._audit.append(entry)
        self._dirty.set()

    def step(self, step: Step) -> None:
        """Enter a line into a device's history."""
        if len(self._steps) < AUDIT_KEPT:
            self._steps.append(step)
        self._dirty.set()

    def set_service(self, serial: str, out: OutOfService | None) -> None:
        """Take a device out of service, or put it back."""
        if out is None:
            self.index.out_of_service.pop(serial, None)
        else:
            self.index.out_of_service[serial] = out
        self._service[serial] = out
        self._dirty.set()

    async def commit(self, work: Callable[[Connection], T], audit: Iterable[Entry] = ()) -> T:
        """Run `work` in a transaction that first writes what has piled up; nothing of it stays when it raises."""
        serials, self._devices = self._devices, set()
        devices = {serial: self.index.devices.get(serial) for serial in serials}
        # A device that vanished while it was being reserved keeps its row until that lease has ended.
        leased = {serial for serial, device in devices.items() if device is None and serial in self.index.lease_of}
        self._devices |= leased
        gone = {serial: self.index.fence_of(serial) for serial in serials - self.index.devices.keys() - leased}
        workers, self._workers = self._workers, {}
        sockets, self._sockets = self._sockets, set()
        earlier, self._audit = self._audit, []
        entries = [*earlier, *audit]
        lost, self._audit_lost = self._audit_lost, 0
        if lost:
            entries.append(Entry("audit lost", str(lost), detail="the database was away"))
        steps, self._steps = self._steps, []
        service, self._service = self._service, {}

        def together(connection: Connection) -> T:
            for worker in workers.values():
                ledger.save_worker(connection, worker)
            for device in devices.values():
                if device is not None:
                    ledger.save_device(connection, device)
            for lease in sockets:
                ledger.note_socket(connection, lease)
            result = work(connection)
            for serial, fence in gone.items():
                ledger.forget_device(connection, serial, fence)
            ledger.write_audit(connection, entries)
            care.write_out_of_service(connection, service)
            care.write_steps(connection, steps, self.history_kept)
            return result

        def put_back() -> None:
            self._devices |= serials
            self._workers = {**workers, **self._workers}
            self._sockets |= sockets
            self._audit = earlier + self._audit
            self._audit_lost += lost
            self._steps = steps + self._steps
            self._service = {**service, **self._service}
            self._dirty.set()

        begun = time.monotonic()
        writing = asyncio.ensure_future(self.store.transact(together))
        try:
            result = await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # a transaction that has begun ends one way or the other
            if writing.exception() is not None:
                put_back()
            self._doubtful = True  # what was written, if anything, nobody enters in the index
            raise
        except Exception as error:
            put_back()
            self.counts.commit_failures += 1
            if isinstance(error, StoreError):
                self.problem = str(error)
                self._doubtful = True  # a connection that breaks at the commit does not tell whether it was done
            raise
        self.counts.commits += 1
        self.counts.commit_s += time.monotonic() - begun
        self.problem = ""
        return result

    async def settle_doubts(self) -> None:
        """After a failed commit: end what the database may have taken although we were told that it did not.

        The caller holds `lock`. Nothing to do when no commit failed.
        """
        if not self._doubtful:
            return
        known = set(self.index.holdings)
        used = await self.store.transact(lambda connection: ledger.end_unknown(connection, known))
        self._doubtful = False
        for serial, fence in used.items():
            if fence <= self.index.fence_of(serial):
                continue
            if (device := self.index.devices.get(serial)) is not None:
                self.index.devices[serial] = replace(device, fence=fence)
            else:
                self.index.gone[serial] = fence
            self.changed_devices([serial])

    async def keep_flushed(self) -> None:
        """Write reports to disk soon after they come, for ever."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
            except (StoreError, NotLeaderError) as error:
                log.error("reports of workers are not on disk yet: %s", error)
                await asyncio.sleep(1)

    async def flush(self) -> None:
        """Write what has piled up."""
        async with self.lock:
            self._dirty.clear()
            await self.settle_doubts()
            if self._devices or self._workers or self._sockets or self._audit or self._steps or self._service:
                await self.commit(lambda connection: None)


def _news(known: Device | None, device: Device) -> Entry | None:
    """What the audit log says of a report. The steps of each reservation are not in it: they follow from its lines."""
    if known is None or known.worker != device.worker:
        return Entry("device added", device.serial, device.worker, detail=device.driver)
    broken = DeviceState.BROKEN in (known.state, device.state) and known.state is not device.state
    if broken or known.health is not device.health:
        detail = f"{device.state}, {device.health}" + (f": {device.reason}" if device.reason else "")
        return Entry("device state", device.serial, device.worker, detail=detail)
    return None
