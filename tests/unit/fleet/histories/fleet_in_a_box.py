"""A fleet in one process, without sockets, files or waiting: the real control, workers and evaluate calls on a clock
that only moves when it is told to, and lines between them that can be cut, silenced and made to lose answers."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any
from unittest import mock

import msgpack
from box_parts import KIND, Ask, Boards, BoxStore, Clock, Database, WorkerDisk, at_once

from fieldstation.core.errors import FieldstationError, StoreError
from fieldstation.core.security import LOCAL
from fieldstation.fleet.client.evaluation import Result
from fieldstation.fleet.client.line import LineDownError
from fieldstation.fleet.client.packing import Bitstreams
from fieldstation.fleet.client.run import Run
from fieldstation.fleet.client.window import BalancedBatchFactory
from fieldstation.fleet.config import ControlConfig
from fieldstation.fleet.control import Control, leases, lines
from fieldstation.fleet.control import clock as clock_module
from fieldstation.fleet.control import told as say
from fieldstation.fleet.delivery import Session
from fieldstation.fleet.errors import FleetError, WorkerUnreachableError
from fieldstation.fleet.model import Holder
from fieldstation.fleet.schedule import Want
from fieldstation.fleet.wire import line_codec as codec
from fieldstation.fleet.wire.worker_requests import parse
from fieldstation.fleet.worker import Worker

SETTLED = 40  # turns of the loop after which nothing is left to do but to wait for the clock


class Bench:
    """A worker with its boards, its disk, and its line to control."""

    def __init__(self, box: Box, name: str, serials: Iterable[str]) -> None:
        self.box = box
        self.name = name
        self.disk = WorkerDisk()
        self.driver = Boards(serials, box.seen, self.disk.fences)
        self.worker: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.connection = ""  # empty: there is no line
        self.cut = False  # no line can be made
        self.silent = False  # nothing passes on the line, and nobody is told
        self.mute = False  # control is heard; what is answered is lost
        self.late: deque[tuple[str, str, dict[str, Any]]] = deque()  # said while nothing passed; arrives after that
        self.order = asyncio.Lock()
        self.reports: deque[tuple[str, dict[str, Any]]] = deque()

    def start(self) -> None:
        self.worker = Worker(self.name, {"boards": self.driver}, self.disk, url=f"http://{self.name}")
        self.worker.reports.subscribe(self._report)
        self.task = self.box.loop.create_task(self.worker.run())

    def kill(self) -> None:
        assert self.task is not None
        self.task.cancel()
        self.worker = self.task = None
        self.hang_up()
        self.reports.clear()
        for client in self.box.clients.values():
            client.lose(self.name)

    def hang_up(self) -> None:
        connection, self.connection = self.connection, ""
        if self.worker is not None:
            self.worker.connected = False
        self.reports = deque(report for report in self.reports if report[0] == "failed")
        if connection and self.box.control is not None:
            self.box.control.lines.lost(self.name, connection)

    async def dial(self) -> None:
        """Say hello, as `wire.line` does; nothing when there is a line, or there can be none."""
        control = self.box.control
        if self.connection or self.cut or self.worker is None or control is None:
            return
        self.connection = connection = f"{self.name}{self.box.loop.now}{random.random()}"
        worker = self.worker
        self.reports = deque(report for report in self.reports if report[0] == "failed")
        worker.connected = True
        async with self.order:
            message = codec.read(codec.HelloMessage, worker.hello())
            devices = [device.to_model(self.name) for device in message.devices]
            answer = control.lines.hello(LOCAL, connection, message.to_model(), devices, message.leases)
            await asyncio.sleep(0)
            if self.connection == connection and self.worker is worker:
                told = json.loads(json.dumps(answer))
                await worker.reunite(told["leases"], told["out_of_service"])
        self.flush()

    def _report(self, report: tuple[str, dict[str, Any]]) -> None:
        if self.connection or report[0] == "failed":
            self.reports.append(report)
            self.box.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Deliver what the worker reports, in order, when anything passes."""
        control = self.box.control
        if not self.connection or self.silent or control is None or self.order.locked():
            return
        control.lines.heard(self.name, self.connection)
        if self.late:
            self.box.loop.create_task(self._catch_up())
        while self.reports:
            event, body = self.reports.popleft()
            with suppress(FleetError):
                if event == "device":
                    control.lines.report(self.name, codec.read(codec.DeviceMessage, body).to_model(self.name))
                elif event == "gone":
                    control.lines.gone(self.name, body["serial"])
                elif event == "presence":
                    control.lines.presence(self.name, body["lease"], body["sockets"])
                elif event == "step":
                    control.lines.step(self.name, codec.read(codec.StepMessage, body).to_model(self.name))
                elif event == "failed":
                    control.lines.failed(self.name, body["lease"], body["serial"], body["reason"])

    async def _catch_up(self) -> None:
        while self.late:
            connection, event, body = self.late.popleft()
            if connection == self.connection:
                with suppress(FieldstationError):
                    await self.obey(event, body)

    async def obey(self, event: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        async with self.order:
            worker = self.worker
            assert worker is not None
            if event == "assign":
                return await worker.assign(body)
            if event == "extend":
                worker.extend(body["lease"], body["for_s"])
            elif event == "release":
                worker.release(body["lease"], body["serials"], body["reason"])
            return {}


class Client:
    """A program: what it believes to hold, its sockets to workers, its evaluate calls (it is their `Devices`)."""

    def __init__(self, box: Box, name: str) -> None:
        self.box = box
        self.name = name
        self.holder = Holder(LOCAL.user, name)
        self.held: dict[str, tuple[str, int, str]] = {}  # serial -> token, fence, worker
        self.old: list[tuple[str, str, int, str]] = []  # serial, token, fence, worker: not held any more
        self.sockets: dict[str, Session] = {}
        self.cut: set[str] = set()  # workers, or "control", that it does not reach
        self.there = False  # control knows of a socket of ours
        self.untold: deque[str] = deque()
        self.runs: list[tuple[Run, asyncio.Task[None], asyncio.Task[None]]] = []
        self.results: list[Result] = []
        self.asked: Counter[tuple[str, str]] = Counter()

    # Lines.

    def connect(self) -> None:
        """Make the lines that can be made and are not there."""
        if not self.there and "control" not in self.cut and self.box.control is not None:
            self.there = True
            self.box.control.client_connected(self.holder)
        while self.there and self.untold:
            self.hear(self.untold.popleft())
        for worker in {worker for _, _, worker in self.held.values()}:
            self._reach(worker)

    def _reach(self, name: str) -> None:
        worker = self.box.benches[name].worker
        if name in self.sockets or name in self.cut or worker is None:
            return
        session = self.sockets[name] = self.session(name)
        worker.open(session)
        for token, _, where in self.held.values():
            if where == name:
                worker.present(session, token)
        for run, _, _ in self.runs:
            run.line_is_back(name)

    def session(self, name: str) -> Session:
        def send(text: str, confirmed: Callable[[], None]) -> None:
            def arrive() -> None:
                if self.sockets.get(name) is session:
                    self.hear(text)
                    confirmed()

            self.box.loop.call_soon(arrive)

        session = Session(self.name, ours=True, send=send)
        return session

    def lose(self, name: str) -> None:
        """The socket to a worker is gone, on both sides."""
        session, worker = self.sockets.pop(name, None), self.box.benches[name].worker
        if session is not None and worker is not None:
            worker.close(session)

    def lose_control(self) -> None:
        if self.there and self.box.control is not None:
            self.box.control.client_gone(self.holder)
        self.there = False

    # Reservations.

    async def reserve(self, amount: int) -> None:
        control = self.box.control
        if control is None or "control" in self.cut:
            return
        with suppress(FieldstationError):
            rows = await control.reservations.reserve(LOCAL, Want(self.holder, KIND, amount), {})
            if "control" in self.cut:
                return  # the answer is lost: we do not know that we hold them
            for row in rows:
                name = row.url.removeprefix("http://")
                self.held[row.serial] = row.token, row.fence, name
                self.box.grant(row.serial, row.fence, self.name)
                if name in self.sockets and (worker := self.box.benches[name].worker) is not None:
                    worker.present(self.sockets[name], row.token)
            self.connect()

    async def end(self, serials: Iterable[str]) -> None:
        control = self.box.control
        if control is None or "control" in self.cut:
            return
        serials = list(serials)
        with suppress(FieldstationError):
            await control.reservations.end(LOCAL, self.name, serials)
            for serial in serials:
                self.drop(serial, "ended by us")

    async def extend(self) -> None:
        if self.box.control is not None and "control" not in self.cut:
            with suppress(FieldstationError):
                await self.box.control.reservations.extend(LOCAL, self.name, None)

    def drop(self, serial: str, reason: str) -> None:
        if (was := self.held.pop(serial, None)) is not None:
            self.old.append((serial, *was))
            for run, _, _ in self.runs:
                run.lost(serial, reason)

    def hear(self, text: str) -> None:
        message = json.loads(text)
        serial = message["serial"]
        for item in message["contents"]:
            if item["event"] == "results":
                for run, _, _ in self.runs:
                    if run.batch_id == item["batch_id"]:
                        run.answered(serial, item["results"], item.get("reasons", {}))
            elif item["event"] in ("failure", "reservation end") and serial in self.held:
                fence = item.get("fence")
                if fence is None or fence >= self.held[serial][1]:
                    self.drop(serial, item["event"])

    # Evaluations.

    def evaluate(self, count: int) -> None:
        fences = {serial: fence for serial, (_, fence, _) in self.held.items()}
        if not fences:
            return
        asks = [Ask(fences, self.name, self.box.next_number()) for _ in range(count)]
        self.asked.update((serial, ask.id) for ask in asks for serial in ask.serials)
        run = Run(self, asks, BalancedBatchFactory(), Bitstreams(), result_timeout_s=20, outage_timeout_s=60)

        async def collect() -> None:
            async for some in run.results():
                self.results += some

        collecting = self.box.loop.create_task(collect())
        pumping = self.box.loop.create_task(run.pump(lambda work, name: self.box.loop.create_task(work)))
        self.runs.append((run, collecting, pumping))

    def worker_of(self, serial: str) -> str:
        return self.held[serial][2]

    def is_up(self, url: str) -> bool:
        return url in self.sockets

    async def send(self, url: str, message: bytes, callback: Callable[..., None] | None = None) -> None:
        session = self.sockets.get(url)
        if session is None:
            raise LineDownError
        self.box.loop.call_soon(self._arrive, url, session, message, callback)

    def _arrive(self, name: str, session: Session, message: bytes, callback: Callable[..., None] | None) -> None:
        worker = self.box.benches[name].worker
        if self.sockets.get(name) is not session or worker is None:
            return
        request, refused = parse(message), {}
        for serial in request.serials:
            try:
                worker.request(session, serial, request.event, request.contents)
            except FleetError as error:
                refused[serial] = {"reason": error.fields.get("code", error.code), "message": str(error)}
        if callback is not None:
            self.box.loop.call_soon(callback, {"ok": True, "refused": refused})

    async def recover(self, serial: str, timeout_s: float) -> bool:
        return False

    async def abandon(self, serial: str, reason: str) -> None:
        await self.end([serial])
        self.drop(serial, reason)

    def intrude(self, serial: str, token: str, fence: int, name: str) -> None:
        """Command with a lease that is over, on a socket of its own."""
        worker = self.box.benches[name].worker
        if worker is None:
            return
        session = Session(self.name, ours=True, send=lambda text, confirmed: None)
        worker.open(session)
        worker.present(session, token)
        payload = msgpack.packb([self.name, {serial: fence}, -self.box.next_number()])
        with suppress(FleetError):
            worker.request(session, serial, "evaluate", {"files": {f"intruder {payload!r}": payload}, "batch_id": "x"})
        worker.close(session)


class Box:
    """The whole fleet. `do` runs something until nothing moves; `wait` moves the clock."""

    def __init__(self, serials: Mapping[str, Iterable[str]], clients: Iterable[str]) -> None:
        self.loop = Clock()
        self.seen: list[tuple[str, str, int, int]] = []
        self.granted: dict[tuple[str, int], str] = {}
        self._number = 0
        self._asking: set[asyncio.Task[None]] = set()
        self._patches = [mock.patch("time.monotonic", self.loop.time), mock.patch("asyncio.to_thread", at_once)]
        self._patches += [
            mock.patch.object(module, "datetime", self.loop.wall()) for module in (clock_module, leases, lines)
        ]
        for patch in self._patches:
            patch.start()
        logging.disable()  # thousands of lines on what was broken on purpose
        self.database = Database()
        self.control: Control | None = None
        self.control_task: asyncio.Task[None] | None = None
        self.benches = {name: Bench(self, name, owned) for name, owned in serials.items()}
        self.clients = {name: Client(self, name) for name in clients}
        try:
            self.do(self.start_control)
            for bench in self.benches.values():
                self.do(bench.start)
            self.wait(1.0)
        except BaseException:
            self.close()  # a clock that stands still would fail all tests after this one too
            raise

    def close(self) -> None:
        self.do(self.stop_control)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settle()
        self.loop.close()
        self.database.engine.dispose()
        for patch in self._patches:
            patch.stop()
        logging.disable(logging.NOTSET)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def grant(self, serial: str, fence: int, client: str) -> None:
        other = self.granted.setdefault((serial, fence), client)
        assert other == client, f"{serial} with fence {fence} was given to {other} and to {client}"

    # Time.

    def settle(self) -> None:
        async def turn() -> None:
            for _ in range(SETTLED):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    def do(self, act: Callable[..., Coroutine[Any, Any, None] | None], *args: Any) -> None:
        """Begin something and let everything happen that needs no time."""

        async def begin() -> None:
            if (work := act(*args)) is not None:
                task = self.loop.create_task(work)
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

        self.loop.run_until_complete(begin())
        self.settle()

    def wait(self, seconds: float) -> None:
        left = seconds
        while left > 0:
            self.loop.now += min(left, 0.5)
            left -= 0.5
            self.do(self._tend)

    def _tend(self) -> None:
        for bench in self.benches.values():
            self.loop.create_task(bench.dial())
            bench.flush()
        for client in self.clients.values():
            client.connect()

    # Control.

    def start_control(self) -> None:
        config = ControlConfig(
            database="sqlite://", lease_s=30, grace_s=4, ending_soon_s=10, beat_s=1, return_s=5, command_s=2
        )

        async def live() -> None:
            while True:
                control = Control(config, BoxStore(self.database), self._call)
                control.clock.monotonic = self.loop.time
                with suppress(StoreError):
                    await control.refresh_tokens()
                    await control.start("box:1", port_is_ours=True)
                    break
                await asyncio.sleep(0.5)  # whoever started it starts it again
            control.lines.probe = self._refuses
            control.events.subscribe(self._news)
            self.control = control
            await control.run()

        self.control_task = self.loop.create_task(live())

    def stop_control(self) -> None:
        """Kill -9: nothing is written any more."""
        for bench in self.benches.values():
            bench.connection = ""
            if bench.worker is not None:
                bench.worker.connected = False
        for client in self.clients.values():
            client.there = False
        assert self.control_task is not None
        self.control = None
        for task in self._asking:  # a request that it was working on dies with it
            task.cancel()
        self.control_task.cancel()

    async def _refuses(self, url: str) -> bool:
        return self.benches[url.removeprefix("http://")].worker is None

    async def _call(self, worker: str, event: str, body: Mapping[str, Any], limit_s: float) -> Mapping[str, Any]:
        bench = self.benches[worker]
        if not bench.connection:
            raise WorkerUnreachableError(worker=worker, what=event)
        if bench.silent:
            bench.late.append((bench.connection, event, json.loads(json.dumps(body))))
            await asyncio.sleep(limit_s)
            raise WorkerUnreachableError(worker=worker, what=event)
        await asyncio.sleep(0)
        answer = await bench.obey(event, json.loads(json.dumps(body)))
        if bench.mute:
            await asyncio.sleep(limit_s)
            raise WorkerUnreachableError(worker=worker, what=event)
        return answer

    def _news(self, news: say.News) -> None:
        for client in self.clients.values():
            if isinstance(news, say.Leased):
                if news.holder == client.holder:
                    told = [text for text in client.untold if json.loads(text)["serial"] not in news.serials]
                    client.untold = deque(told)
            elif news.to == client.holder:
                client.untold.append(news.text)
                self.loop.call_soon(client.connect)
