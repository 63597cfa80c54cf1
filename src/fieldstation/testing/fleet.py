"""Host a driver in this process and talk to its devices as a client would: `with serve("my_driver") as bench`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fieldstation.core import plugins
from fieldstation.core.blocking import Portal
from fieldstation.core.errors import FieldstationError
from fieldstation.fleet.delivery import Session
from fieldstation.fleet.driver import Driver
from fieldstation.fleet.model import DeviceState
from fieldstation.fleet.worker import Worker
from fieldstation.fleet.worker_store import WorkerStore
from fieldstation.testing.waiting import eventually


class RequestRefusedError(FieldstationError, AssertionError):
    """{serial} refused {event}: {message}"""


class ReservedDevice:
    """A device that the test holds."""

    def __init__(self, bench: Bench, serial: str, session: Session) -> None:
        self.serial = serial
        self._bench = bench
        self._session = session

    def send(self, event: str, **contents: Any) -> None:
        """Send a request to the device's state; raises when it is refused at once. Files are bytes."""
        self._bench.call(self._bench.worker.request, self._session, self.serial, event, contents)

    def event(self, name: str, deadline_s: float = 5.0) -> dict[str, Any]:
        """Wait for the next event `name` of this device and return its contents; RequestRefusedError for a refusal."""
        return self._bench.next_event(self.serial, name, deadline_s)

    def end(self) -> None:
        """Give the device back, and wait until it is available again."""
        held = self._bench.call(self._bench.worker.holdings.check, self._session.leases, self.serial, 0.0)
        self._bench.call(self._bench.worker.release, held.id, [self.serial], "the test ended it")
        self._bench.wait_available(self.serial)


class Bench:
    """A worker without servers, hosting one driver."""

    def __init__(self, worker: Worker, portal: Portal, deadline_s: float) -> None:
        self.worker = worker
        self._portal = portal
        self._deadline_s = deadline_s
        self._events: list[tuple[str, dict[str, Any]]] = []

    @property
    def available(self) -> list[str]:
        """The serials that may be reserved now."""
        return [h.serial for h in self.call(self.worker.devices.all) if h.state is DeviceState.AVAILABLE]

    def wait_available(self, serial: str | None = None) -> str:
        """Wait until this device, or any, may be reserved, and return its serial."""

        async def wait() -> str:
            return await eventually(self._first_available(serial), self._deadline_s, what="an available device")

        return self._portal.call(wait())

    def _first_available(self, serial: str | None) -> Callable[[], str]:
        def first() -> str:
            hosted = [h for h in self.worker.devices.all() if serial in (None, h.serial)]
            return next((h.serial for h in hosted if h.state is DeviceState.AVAILABLE), "")

        return first

    def reserve(self, kind: str, serial: str | None = None, **args: Any) -> ReservedDevice:
        """Reserve a device, wait until it is initialized, and return it. `args` are the kind's arguments."""
        serial = self.wait_available(serial)
        session = Session("test", ours=True, send=self._receive)
        self.call(self._take, session, serial, kind, args)
        self.next_event(serial, "initialized", self._deadline_s)
        return ReservedDevice(self, serial, session)

    def _take(self, session: Session, serial: str, kind: str, args: Mapping[str, Any]) -> None:
        self.worker.open(session)
        _, token = self.worker.reserve_here(serial, kind, args)
        self.worker.present(session, token)

    def _receive(self, text: str, confirmed: Callable[[], None]) -> None:
        message = json.loads(text)
        for item in message["contents"]:
            self._events.append((message["serial"], item))
        asyncio.get_running_loop().call_soon(confirmed)

    def next_event(self, serial: str, name: str, deadline_s: float) -> dict[str, Any]:
        """Wait for the next event `name` of `serial` and return its contents."""

        def find() -> dict[str, Any] | None:
            for position, (owner, item) in enumerate(self._events):
                if owner == serial and item["event"] in (name, "refused"):
                    del self._events[position]
                    return item
            return None

        async def wait() -> dict[str, Any] | None:
            return await eventually(find, deadline_s, what=f"the event {name!r} of {serial}")

        found = self._portal.call(wait())
        assert found is not None
        if found["event"] != name:
            raise RequestRefusedError(serial=serial, event=name, message=found.get("message", ""))
        return {key: value for key, value in found.items() if key != "event"}

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function` on the worker's event loop."""

        async def run() -> Any:
            return function(*args)

        return self._portal.call(run())


@contextmanager
def serve(driver: str | Driver | type[Driver], *, deadline_s: float = 10.0, **settings: Any) -> Iterator[Bench]:
    """Host `driver` (an entry point's name, a class, or an instance) for the length of the block.

    `settings` are the fields of the driver's `Settings`. `deadline_s` bounds every wait for a device.
    """
    portal = Portal()
    with tempfile.TemporaryDirectory(prefix="fieldstation-bench-") as folder:
        started: concurrent.futures.Future[tuple[Worker, asyncio.Event]] = concurrent.futures.Future()
        life = asyncio.run_coroutine_threadsafe(_live(driver, settings, Path(folder), started), portal.loop)
        life.add_done_callback(functools.partial(_tell_failure, started))
        worker, stop = started.result(deadline_s)
        try:
            yield Bench(worker, portal, deadline_s)
        finally:
            portal.loop.call_soon_threadsafe(stop.set)
            life.result(deadline_s)
            portal.close()


async def _live(
    driver: str | Driver | type[Driver],
    settings: Mapping[str, Any],
    folder: Path,
    started: concurrent.futures.Future[tuple[Worker, asyncio.Event]],
) -> None:
    if isinstance(driver, str):
        driver = plugins.load("drivers", driver)
    if isinstance(driver, type):
        driver = driver(driver.Settings(**settings)) if driver.Settings is not None else driver()  # type: ignore[call-arg]  # by the Driver's contract
    assert isinstance(driver, Driver)
    store = WorkerStore(folder / "worker.db")
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            worker = Worker("bench", {type(driver).__name__: driver}, store)
            running = group.create_task(worker.run())
            started.set_result((worker, stop))
            await stop.wait()
            running.cancel()
    finally:
        await asyncio.to_thread(store.close)


def _tell_failure(started: concurrent.futures.Future[Any], life: concurrent.futures.Future[None]) -> None:
    if not started.done():
        started.set_exception(life.exception() or RuntimeError("the worker ended before it began"))
