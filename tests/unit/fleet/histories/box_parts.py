"""What the fleet in a box is made of: a clock, a database and disks in memory, boards that measure at once."""

from __future__ import annotations

import asyncio
import datetime as dates
import functools
import selectors
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

import msgpack
import sqlalchemy
from sqlalchemy.pool import StaticPool

from fieldstation.core.errors import StoreError
from fieldstation.fleet.client.evaluation import Evaluation
from fieldstation.fleet.driver import TTY, Driver, Hotplug, Node
from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.holding import Held
from fieldstation.fleet.model import OutOfService
from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.reservable import reservable
from fieldstation.fleet.store import leader, schema, tables

KIND = "box measurement"
MEASURE_S = 0.3
BEGAN = dates.datetime(2026, 1, 1, tzinfo=dates.UTC)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time stands still until `now` is moved."""

    def __init__(self) -> None:
        super().__init__(selectors.DefaultSelector())
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def wall(self) -> type[dates.datetime]:
        clock = self

        class Wall(dates.datetime):
            @classmethod
            def now(cls, tz: dates.tzinfo | None = None) -> dates.datetime:
                return BEGAN + dates.timedelta(seconds=clock.now)

        return Wall


def _in_memory() -> sqlalchemy.Engine:
    return sqlalchemy.create_engine("sqlite://", poolclass=StaticPool)


@functools.cache
def _new_schema() -> sqlalchemy.Engine:
    """A database of today's schema, made once and copied: migrations take long."""
    engine = _in_memory()
    schema.upgrade(engine, "the box")
    return engine


class Database:
    """The rows, in memory. `down` makes it fail as a database that is being restarted does."""

    def __init__(self) -> None:
        self.down = False
        self.engine = _in_memory()
        with _new_schema().connect() as source, self.engine.connect() as target:
            source.connection.driver_connection.backup(target.connection.driver_connection)

    def audit(self) -> list[Any]:
        with self.engine.begin() as connection:
            return list(connection.execute(sqlalchemy.select(tables.audit).order_by(tables.audit.c.id)).mappings())


class BoxStore:
    """A control's way to the database (`Store`)."""

    is_sqlite = True

    def __init__(self, database: Database) -> None:
        self.database = database
        self.epoch: int | None = None
        self.deposed: Callable[[], None] = lambda: None

    async def transact(self, work: Callable[[sqlalchemy.Connection], Any]) -> Any:
        epoch = self.epoch

        def guarded(connection: sqlalchemy.Connection) -> Any:
            if epoch is not None:
                leader.check(connection, epoch)
            return work(connection)

        try:
            return await self.read(guarded)
        except NotLeaderError:
            self.deposed()
            raise

    async def read(self, work: Callable[[sqlalchemy.Connection], Any]) -> Any:
        await asyncio.sleep(0)
        result = self.transact_now(work)
        await asyncio.sleep(0)
        return result

    def transact_now(self, work: Callable[[sqlalchemy.Connection], Any]) -> Any:
        if self.database.down:
            raise StoreError(path="the box", problem="it is down")
        with self.database.engine.begin() as connection:
            return work(connection)

    def close(self) -> None:
        """The rows outlive control."""


async def at_once(work: Callable[..., Any], *args: Any) -> Any:
    """Stands for `asyncio.to_thread`."""
    await asyncio.sleep(0)
    return work(*args)


class WorkerDisk:
    """What a worker keeps over kill -9 (`WorkerStore`)."""

    def __init__(self) -> None:
        self.fences: dict[str, int] = {}
        self.leases: dict[str, tuple[dict[str, Any], float, bool | None]] = {}
        self.events: dict[int, tuple[int, str, str, str]] = {}
        self.out: dict[str, OutOfService] = {}
        self._next = 0

    def load_out_of_service(self) -> dict[str, OutOfService]:
        return dict(self.out)

    def save_out_of_service(self, serial: str, out: OutOfService | None) -> Future[None]:
        self.out.pop(serial, None)
        if out is not None:
            self.out[serial] = out
        return _done()

    def load(self, now: float) -> tuple[dict[str, int], list[Held], list[tuple[int, str, str, str]]]:
        held = []
        for body, ends_at, ours in self.leases.values():
            one = Held.parse({**body, "for_s": ends_at - now}, now)
            one.ours = ours
            one.ended_at = None if one.fences else min(one.ends_at, now)
            held.append(one)
        return dict(self.fences), held, list(self.events.values())

    def save(self, held: Held, now: float) -> Future[None]:
        self.leases[held.id] = held.body(now), held.ends_at if held.ended_at is None else held.ended_at, held.ours
        for serial, fence in held.fences.items():
            self.fences[serial] = max(fence, self.fences.get(serial, 0))
        return _done()

    def forget(self, lease: str) -> Future[None]:
        self.leases.pop(lease, None)
        self.events = {key: event for key, event in self.events.items() if event[1] != lease}
        return _done()

    def new_event_id(self) -> int:
        self._next += 1
        return self._next

    def save_events(self, events: Iterable[tuple[int, str, str, str]]) -> Future[None]:
        self.events |= {event[0]: event for event in events}
        return _done()

    def delivered(self, event: int) -> Future[None]:
        self.events.pop(event, None)
        return _done()


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


class Boards(Driver):
    """Boards that need no flashing. `seen` is what they measured: serial, who commanded it with which fence, and the
    highest fence that the worker knew then."""

    kinds = (KIND,)
    flashes = False

    def __init__(self, serials: Iterable[str], seen: list[tuple[str, str, int, int]], known: dict[str, int]) -> None:
        self.serials = list(serials)
        self.seen = seen
        self.known = known
        self.found_after_s = 0.0  # a worker that starts says hello before it has found its boards

    async def events(self) -> Any:
        if self.found_after_s:
            await asyncio.sleep(self.found_after_s)
        for serial in self.serials:
            yield Hotplug("add", serial, Node(TTY, f"/dev/{serial}"))
        await asyncio.Event().wait()

    def measure(self, serial: str, payload: bytes) -> str:
        client, fences, number = msgpack.unpackb(payload)
        self.seen.append((serial, client, fences[serial], self.known[serial]))
        return f"{serial} {number}"


@reservable(KIND)
class Measuring(AbstractState):
    """Measures one after another; what it has measured is not measured again."""

    blocking = False

    def __init__(self, device: Any) -> None:
        super().__init__(device)
        self._queue: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue()
        self._values: dict[str, str | None] = {}

    @AbstractState.register("evaluate", "files", "batch_id")
    def evaluate(self, files: dict[str, Any], batch_id: str) -> None:
        for key, payload in files.items():
            if key not in self._values:
                self._values[key] = None
                self._queue.put_nowait((key, batch_id, payload))
            elif self._values[key] is not None:
                self._tell(key, batch_id)

    def _tell(self, key: str, batch_id: str) -> None:
        told = {"batch_id": batch_id, "results": [[key, self._values[key]]]}
        self.device_event_sender.sendDeviceEvent("results", told)

    async def run(self) -> None:
        while True:
            key, batch_id, payload = await self._queue.get()
            await asyncio.sleep(MEASURE_S)
            self._values[key] = self.device.driver.measure(self.serial, payload)
            self._tell(key, batch_id)


class Ask(Evaluation):
    """One number to be measured; its payload says who commands."""

    def __init__(self, fences: Mapping[str, int], client: str, number: int) -> None:
        super().__init__(fences)
        self.payload = msgpack.packb([client, dict(fences), number])

    def _toJson(self) -> Mapping[str, Any]:
        return {"files": {self.id: self.payload}}
