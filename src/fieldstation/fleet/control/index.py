"""What control knows, in memory: answers about devices cost no database.

Everything here is changed from the event loop only, and never awaits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fieldstation.fleet.errors import UnknownSerialError
from fieldstation.fleet.model import Device, DeviceState, Health, Holder, Lease, OutOfService, Worker, WorkerState


@dataclass(slots=True)
class Holding:
    """A lease as control counts it; all times are monotonic seconds."""

    lease: Lease
    deadline: float
    sockets: int = 0  # on the worker, presenting this lease
    idle_since: float | None = None  # when the holder's last socket closed
    warned_at: float | None = None
    noted: bool = False  # the database knows that the holder had a socket


class Index:
    """Workers by name, devices by serial, open leases by id."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.devices: dict[str, Device] = {}
        self.gone: dict[str, int] = {}  # serial -> highest fencing number of a device that is gone
        self.holdings: dict[str, Holding] = {}
        self.lease_of: dict[str, str] = {}  # serial -> lease id
        self.out_of_service: dict[str, OutOfService] = {}
        self.clients: Counter[Holder] = Counter()  # open control sockets

    def clear(self) -> None:
        """Forget everything."""
        for known in (
            self.workers,
            self.devices,
            self.gone,
            self.holdings,
            self.lease_of,
            self.clients,
            self.out_of_service,
        ):
            known.clear()

    def offers(self) -> list[Device]:
        """Devices that anybody may have now: available, healthy, on a worker that is online and not draining."""
        open_workers = {w.name for w in self.workers.values() if w.state is WorkerState.ONLINE and not w.draining}
        return [
            device
            for device in self.devices.values()
            if device.state is DeviceState.AVAILABLE
            and device.worker in open_workers
            and device.serial not in self.lease_of
            and device.health in (Health.OK, Health.DEGRADED)
        ]

    def busy(self) -> Counter[str]:
        """How many reserved devices each worker has."""
        return Counter(self.devices[serial].worker for serial in self.lease_of if serial in self.devices)

    def kinds(self) -> set[str]:
        """All kinds that some device or worker offers."""
        found = {kind for device in self.devices.values() for kind in device.kinds}
        return found.union(*(worker.kinds for worker in self.workers.values()))

    def known(self, serials: Iterable[str]) -> list[Device]:
        """Return the devices, or raise for those that do not exist."""
        wanted = list(dict.fromkeys(serials))
        if missing := [serial for serial in wanted if serial not in self.devices]:
            raise UnknownSerialError(serials=", ".join(missing), field="serials")
        return [self.devices[serial] for serial in wanted]

    def fence_of(self, serial: str) -> int:
        """The highest fencing number ever leased on a device, also on one that was gone meanwhile."""
        device = self.devices.get(serial)
        return device.fence if device is not None else self.gone.get(serial, 0)

    def holding_of(self, serial: str) -> Holding | None:
        """The open lease on a device."""
        lease = self.lease_of.get(serial)
        return None if lease is None else self.holdings[lease]

    def held_by(self, holder: Holder) -> list[str]:
        """Serials on which `holder` has a lease, in the order they were reserved."""
        return [serial for serial, lease in self.lease_of.items() if self.holdings[lease].lease.holder == holder]

    def of_worker(self, worker: str) -> list[Device]:
        """The devices of a worker."""
        return [device for device in self.devices.values() if device.worker == worker]

    def holdings_on(self, worker: str) -> list[Holding]:
        """The open leases on a worker's devices."""
        return [holding for holding in self.holdings.values() if holding.lease.worker == worker]

    def add(self, holding: Holding) -> None:
        """Enter a lease: its devices are reserved."""
        self.holdings[holding.lease.id] = holding
        for serial, fence in holding.lease.fences.items():
            self.lease_of[serial] = holding.lease.id
            if serial in self.devices:
                self.devices[serial] = replace(self.devices[serial], state=DeviceState.RESERVED, fence=fence)

    def remove(self, holding: Holding, serials: Iterable[str]) -> None:
        """Take devices out of a lease; without devices it is over."""
        gone = set(serials)
        left = {serial: fence for serial, fence in holding.lease.fences.items() if serial not in gone}
        for serial in gone:
            self.lease_of.pop(serial, None)
            device = self.devices.get(serial)
            if device is not None and device.state is DeviceState.RESERVED:
                self.devices[serial] = replace(device, state=DeviceState.AWAIT_FLASH_DEFAULT)
        holding.lease = replace(holding.lease, fences=left)
        if not left:
            self.holdings.pop(holding.lease.id, None)

    def connected(self, holding: Holding) -> bool:
        """Tell whether the holder has any socket, here or on the worker."""
        return holding.sockets > 0 or self.clients[holding.lease.holder] > 0
