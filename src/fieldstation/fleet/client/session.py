"""`FleetClient`: one program's reservations and what it does with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Self

import msgpack

from fieldstation.core.errors import FieldstationError
from fieldstation.core.events import Publisher
from fieldstation.fleet.client import events as names
from fieldstation.fleet.client.connection import Connection
from fieldstation.fleet.client.evaluation import Evaluation, Result
from fieldstation.fleet.client.events import Event, parse
from fieldstation.fleet.client.extension import Extension
from fieldstation.fleet.client.line import LineDownError
from fieldstation.fleet.client.packing import Bitstreams, request
from fieldstation.fleet.client.ready import Readiness
from fieldstation.fleet.client.reserving import Held, Place, ask_for
from fieldstation.fleet.client.run import Run
from fieldstation.fleet.client.window import BalancedBatchFactory, BatchFactory
from fieldstation.fleet.errors import NotHeldError, ReservationFailedError, WorkerUnreachableError

log = logging.getLogger(__name__)

ANSWER_S = 5.0  # for control's answer to a reservation that was called off while it was asked for
READY_TIMEOUT_S = 120.0  # a board that is flashed needs seconds; after this it is given back
REACH_S = 20.0  # an advertised address where nobody answers is usually a wrong one
END_PATIENCE_S = 2.0  # a program that ends must not wait long for a server that is gone
OUTAGE_TIMEOUT_S = 300.0


class FleetClient(Connection):
    """Reserves devices under `name` and evaluates on them; an async context manager that ends what it reserved.

    `control` is one address, several separated by commas, or a list; `token` a user's token, which the address may
    also carry (`http://name:token@host`). Reservations are extended until they are ended. Errors are those of
    `fieldstation.fleet.errors`; every one says what to do. Use it on the event loop that it was started on.
    """

    def __init__(self, control: str | Iterable[str], name: str, *, token: str | None = None) -> None:
        super().__init__(control, name, token=token)
        self.events: Publisher[Event] = Publisher()
        self._ready = Readiness()
        self._files = Bitstreams()
        self._held: dict[str, Held] = {}
        self._runs: dict[str, Run] = {}
        self._extension = Extension(self._held, self.extend, self._drop)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Connect to the control server; raises ControlUnreachableError (or why it turns us away) when that fails."""
        await self.connect()
        self.background.spawn(self._extension.run(), "extension of reservations")

    async def close(self, timeout_s: float = 10.0) -> None:
        """End what is reserved (unless the control is gone for longer than `timeout_s`) and hang up."""
        try:
            if self._held:
                async with asyncio.timeout(timeout_s):
                    await self.end(list(self._held))
        except (FieldstationError, TimeoutError) as error:
            log.warning("reservations of %s are left to run out: %s", self.name, error)
        finally:
            for serial in list(self._held):
                self._drop(serial, "the client was closed")
            await self.hang_up()

    # Reservations

    @property
    def serials(self) -> list[str]:
        """The devices we hold, in the order in which they were reserved."""
        return list(self._held)

    async def available(self) -> int:
        """Return how many devices are free now, of all kinds together."""
        return int((await self.control.post("/available", {}))["amount"])

    async def reserve(
        self,
        amount: int,
        *,
        kind: str = "pulsecount",
        args: Mapping[str, Any] | None = None,
        wait_s: float = 0.0,
        priority: int = 0,
        labels: Mapping[str, str] | None = None,
        on_wait: Callable[[Place], None] | None = None,
        ready_timeout_s: float = READY_TIMEOUT_S,
    ) -> list[str]:
        """Reserve `amount` more devices, all or none, and return their serials when every one is ready.

        With `wait_s` we stand in the queue for that long; `on_wait` hears place and reason. ReservationFailedError
        when a device does not get ready (nothing is kept then), NotEnoughDevicesError when too few are free.
        """
        asked: dict[str, Any] = {"amount": amount, "name": self.name, "kind": kind, "args": dict(args or {})}
        if priority:
            asked["priority"] = priority
        if labels:
            asked["labels"] = dict(labels)
        return await self._take("/reserve", asked, wait_s, on_wait, ready_timeout_s)

    async def reserve_serials(
        self,
        serials: str | Iterable[str],
        *,
        kind: str = "pulsecount",
        args: Mapping[str, Any] | None = None,
        wait_s: float = 0.0,
        on_wait: Callable[[Place], None] | None = None,
        ready_timeout_s: float = READY_TIMEOUT_S,
    ) -> list[str]:
        """Reserve these devices, as `reserve` does."""
        asked = {"serials": several(serials), "name": self.name, "kind": kind, "args": dict(args or {})}
        return await self._take("/reserveserials", asked, wait_s, on_wait, ready_timeout_s)

    async def _take(
        self,
        path: str,
        asked: Mapping[str, Any],
        wait_s: float,
        on_wait: Callable[[Place], None] | None,
        ready_timeout_s: float,
    ) -> list[str]:
        asking = asyncio.ensure_future(ask_for(self.control, path, asked, wait_s=wait_s, on_wait=on_wait))
        try:
            taken = {held.row.serial: held for held in await asyncio.shield(asking)}
        except asyncio.CancelledError:
            # Control may have granted it already: what we are not told of we could not end. One that waits leaves the
            # queue, and gives back what it got meanwhile, by itself.
            if wait_s:
                asking.cancel()
            await asyncio.wait([asking], timeout=ANSWER_S)
            if asking.done() and not asking.cancelled() and asking.exception() is None:
                self._held |= {held.row.serial: held for held in asking.result()}
            raise
        self._held |= taken
        waiting = self._ready.expect(taken)
        try:
            async with asyncio.timeout(ready_timeout_s):
                for url, token in {(held.address, held.row.token): None for held in taken.values()}:
                    await self.workers.present(url, token)
                await self._reach({held.address for held in taken.values()})
                for future in waiting.values():
                    await future
        except BaseException as error:
            self._ready.forget(waiting)
            problem = "; ".join(filter(None, {self.workers.problem(held.address) for held in taken.values()}))
            await self._give_back(list(taken), "its reservation failed")
            if isinstance(error, TimeoutError):
                late = [serial for serial, future in waiting.items() if not future.done() or future.cancelled()]
                reason = problem or f"it was not ready within {ready_timeout_s:g} s"
                raise ReservationFailedError(serial=", ".join(late), reason=reason) from error
            raise
        return list(taken)

    async def _reach(self, urls: Iterable[str]) -> None:
        for url in urls:
            if not await self.workers.wait_up(url, REACH_S):
                serials = ", ".join(serial for serial, held in self._held.items() if held.address == url)
                raise ReservationFailedError(serial=serials, reason=self.workers.problem(url))

    async def _give_back(self, serials: list[str], reason: str) -> None:
        try:
            async with asyncio.timeout(5):
                await self.control.post("/end", {"name": self.name, "serials": serials}, patience_s=1.0)
        except (FieldstationError, TimeoutError) as error:
            log.warning("could not give %s back: %s", ", ".join(serials), error)
        for serial in serials:
            self._drop(serial, reason)

    async def extend(self, serials: str | Iterable[str]) -> list[str]:
        """Give these reservations their full time again; returns those that are ours."""
        return await self._ours("/extend", serials=several(serials))

    async def extend_all(self) -> list[str]:
        """Extend every reservation under our name."""
        return await self._ours("/extendall")

    async def end(self, serials: str | Iterable[str]) -> list[str]:
        """End these reservations; returns the serials that were ended. Those that are over already are forgotten."""
        asked = several(serials)
        ended = await self._ours("/end", END_PATIENCE_S, serials=asked)
        for serial in asked:
            self._drop(serial, "its reservation was ended by us")
        return ended

    async def end_all(self) -> list[str]:
        """End every reservation under our name, also those of other programs that use it."""
        ended = await self._ours("/endall", END_PATIENCE_S)
        for serial in list(self._held):
            self._drop(serial, "its reservation was ended by us")
        return ended

    async def _ours(self, path: str, patience_s: float | None = None, **asked: Any) -> list[str]:
        answer = await self.control.post(path, {"name": self.name, **asked}, patience_s=patience_s)
        return [str(serial) for serial in answer or ()]

    async def reboot(self, serials: str | Iterable[str], timeout_s: float | None = None) -> list[str]:
        """Reboot devices, keeping what they were asked; returns those that are not ready again after `timeout_s`."""
        asked = several(serials)
        return (await self._reboot(asked, timeout_s))[1] if asked else []

    async def _reboot(self, asked: list[str], timeout_s: float | None) -> tuple[list[str], list[str]]:
        waiting, accepted = self._ready.expect(asked), []
        try:
            accepted = await self.control.post("/reboot", {"serials": asked})
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(waiting[s] for s in asked if s in accepted), return_exceptions=True)
        except TimeoutError:
            log.debug("a reboot took longer than %s s", timeout_s)
        failed = [s for s, f in waiting.items() if not f.done() or f.cancelled() or f.exception() is not None]
        self._ready.forget(waiting)
        return accepted, failed

    def drop(self, serial: str) -> None:
        """Forget a device without telling the control."""
        self._drop(serial, "it was removed by its user")

    # Evaluations and other requests

    async def evaluate(self, evaluations: Iterable[Evaluation], **options: Any) -> AsyncIterator[Result]:
        """Yield one Result per evaluation and device as they arrive; a failed one says why, none is left out.

        The options are those of `evaluate_in_lists`.
        """
        lists = self.evaluate_in_lists(evaluations, **options)
        async with aclosing(lists):
            async for some in lists:
                for found in some:
                    yield found

    async def evaluate_in_lists(
        self,
        evaluations: Iterable[Evaluation],
        *,
        batches: BatchFactory | None = None,
        result_timeout_s: float = 30.0,
        outage_timeout_s: float = OUTAGE_TIMEOUT_S,
        result: Callable[..., Result] = Result,
    ) -> AsyncGenerator[list[Result], None]:
        """Do as `evaluate`, with all results that are there in one list: fewer hops for a reader in another thread.

        A device that answers nothing for `result_timeout_s` is rebooted once, then given up. While its worker cannot
        be reached that clock stands still, for at most `outage_timeout_s`. Raises NotHeldError before anything is sent.
        """
        asked = list(evaluations)
        strangers = sorted({serial for evaluation in asked for serial in evaluation.serials} - self._held.keys())
        if strangers:
            raise NotHeldError(client=self.name, serials=", ".join(strangers))
        run = Run(
            self,
            asked,
            batches or BalancedBatchFactory(),
            self._files,
            result_timeout_s=result_timeout_s,
            outage_timeout_s=outage_timeout_s,
            result=result,
        )
        self._runs[run.batch_id] = run
        pump = self.background.spawn(run.pump(self.background.spawn), "evaluation")
        try:
            async for some in run.results():
                yield some
        finally:
            del self._runs[run.batch_id]
            pump.cancel()

    async def request(self, serials: str | Iterable[str], event: str, contents: Mapping[str, Any]) -> list[str]:
        """Call a method that a state registered for `event`; files are bytes. Returns serials that were not reached.

        The message is sent, not answered: answers are events (see `events`).
        """
        by_worker: dict[str, list[str]] = {}
        missed = []
        for serial in several(serials):
            if serial in self._held:
                by_worker.setdefault(self.worker_of(serial), []).append(serial)
            else:
                missed.append(serial)
        packed = msgpack.packb(dict(contents))
        for url, there in by_worker.items():
            try:
                await self.send(url, request(there, event, packed))
            except LineDownError:
                missed += there
        return missed

    # What a Run needs

    def worker_of(self, serial: str) -> str:
        """Return the address of the worker that hosts a device we hold."""
        return self._held[serial].address

    def is_up(self, url: str) -> bool:
        """Tell whether the line to a worker stands."""
        return self.workers.is_up(url)

    async def send(self, url: str, message: bytes, callback: Callable[..., None] | None = None) -> None:
        """Send a packed request to a worker; LineDownError when there is no line."""
        await self.workers.send(url, message, callback)

    async def recover(self, serial: str, timeout_s: float) -> bool:
        """Reboot a device; tell whether it is ready again. WorkerUnreachableError when its worker cannot be asked."""
        accepted, failed = await self._reboot([serial], timeout_s)
        if not accepted:
            raise WorkerUnreachableError(worker=f"of {serial}", what="the reboot")
        return not failed

    async def abandon(self, serial: str, reason: str) -> None:
        """Give a device that does not answer back to the fleet."""
        log.warning("%s; its reservation is ended", reason)
        await self._give_back([serial], reason)

    # What servers tell

    def hear(self, message: Any = None, *_: Any) -> None:
        """Act on one `event` message, then hand its events to those who listen."""
        for event in parse(message):
            self._apply(event)
            self.events.publish(event)

    def _apply(self, event: Event) -> None:
        serial, contents = event.serial, event.contents
        if event.event == names.INITIALIZED:
            self._ready.ready(serial)
        elif event.event == names.RESULTS:
            run = self._runs.get(str(contents.get("batch_id")))
            if run is not None and isinstance(contents.get("results"), list):
                reasons, codes = (_mapping(contents.get(name)) for name in ("reasons", "codes"))
                run.answered(serial, contents["results"], reasons, codes)
        elif event.event in (names.FAILURE, names.RESERVATION_END) and serial in self._held:
            # A fence tells a late word about an earlier lease of ours on this device from one about this lease.
            fence = contents.get("fence")
            if isinstance(fence, int) and fence < self._held[serial].row.fence:
                return
            word = "the device failed" if event.event == names.FAILURE else "its reservation ended"
            reason = str(contents.get("reason") or "")
            self._drop(serial, f"{word}: {reason}" if reason else word)
        elif event.event == names.ENDING_SOON and serial in self._held:
            self._extension.soon()
        elif event.event == names.REFUSED:
            log.info("%s: %s", serial, contents.get("message") or contents.get("reason"))

    def _drop(self, serial: str, reason: str) -> None:
        if self._held.pop(serial, None) is None:
            return
        self._ready.lost(serial, reason)
        for run in list(self._runs.values()):
            run.lost(serial, reason)
        tokens: dict[str, dict[str, None]] = {}
        for held in self._held.values():
            tokens.setdefault(held.address, {})[held.row.token] = None
        self.workers.keep({url: list(found) for url, found in tokens.items()})

    def worker_is_up(self, url: str) -> None:
        """Have what this worker did not answer sent again."""
        for run in list(self._runs.values()):
            run.line_is_back(url)


def several(serials: str | Iterable[str]) -> list[str]:
    """Take one serial or a collection of them."""
    return [serials] if isinstance(serials, str) else list(serials)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
