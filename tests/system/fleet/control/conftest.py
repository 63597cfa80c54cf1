"""A control server in this process on either database, and what speaks to it: a worker without hardware, clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import socketio

from fieldstation.fleet import compose
from fieldstation.fleet.config import ControlConfig
from fieldstation.fleet.wire.control_server import ControlService


class FakeWorker:
    """A Socket.IO client that speaks the line. `calls` keeps what control said.

    Boards become reserved on `assign` and available again on `release`, at once.
    """

    def __init__(
        self,
        control: str,
        name: str = "bench",
        serials: tuple[str, ...] = ("A1", "A2", "A3", "A4"),
        *,
        url: str = "http://127.0.0.1:9",
        boot: str = "1",
        kinds: tuple[str, ...] = ("pulsecount", "variance"),
        token: str | None = None,
        devices: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.control_url = control
        self.name = name
        self.url = url
        self.boot = boot
        self.kinds = kinds
        self.token = token
        self.devices: dict[str, dict[str, Any]] = {serial: self.device(serial) for serial in serials}
        self.devices.update(devices or {})
        self.leases: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}  # event -> what to answer instead; None: never answer
        self.hello_answer: dict[str, Any] = {}
        self.reflash = True
        self.background: set[asyncio.Task[None]] = set()
        self.sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        for event in ("assign", "extend", "release", "reboot", "delete", "drain", "service"):
            self.sio.on(event, self._handler(event), namespace="/worker")

    def device(self, serial: str, state: str = "available", **more: Any) -> dict[str, Any]:
        found = {"serial": serial, "driver": "fake", "state": state, "health": "ok", "reason": "", "labels": {}}
        return {**found, "kinds": list(self.kinds), "fence": 0, **more}

    async def connect(self) -> FakeWorker:
        auth = {"worker": self.name, "token": self.token}
        await self.sio.connect(
            self.control_url, auth=auth, namespaces=["/worker"], transports=["websocket"], wait_timeout=20
        )
        self.hello_answer = await self.hello()
        await self.reunite()
        return self

    async def reunite(self) -> None:
        """Take control's word for which leases there are; what is in none of them is reset."""
        listed = {lease["id"]: lease for lease in self.hello_answer.get("leases", ())}
        held = {serial: fence for lease in listed.values() for serial, fence in lease["fences"].items()}
        self.leases = listed
        for serial, device in list(self.devices.items()):
            if serial in held:
                self.devices[serial] = {**device, "state": "reserved", "fence": held[serial]}
            elif device["state"] == "reserved":
                await self.report(serial, state="available")

    async def hello(self, **more: Any) -> dict[str, Any]:
        return await self.say(
            "hello",
            {
                "name": self.name,
                "url": self.url,
                "version": "0",
                "boot": self.boot,
                "kinds": list(self.kinds),
                "draining": False,
                "devices": list(self.devices.values()),
                "leases": list(self.leases),
                **more,
            },
        )

    async def say(self, event: str, argument: Any) -> dict[str, Any]:
        answer = await self.sio.call(event, argument, namespace="/worker", timeout=5)
        assert isinstance(answer, dict)
        return answer

    async def report(self, serial: str, **change: Any) -> dict[str, Any]:
        self.devices[serial] = {**self.devices.get(serial, self.device(serial)), **change}
        return await self.say("device", self.devices[serial])

    async def close(self) -> None:
        for task in self.background:
            task.cancel()
        await self.sio.disconnect()

    def _handler(self, event: str) -> Any:
        async def handle(argument: dict[str, Any]) -> Any:
            self.calls.append((event, argument))
            if event in self.answers:
                if self.answers[event] is None:
                    await asyncio.sleep(3600)
                return self.answers[event]
            if event == "assign":
                self.leases[argument["id"]] = argument
                for serial, fence in argument["fences"].items():
                    self.devices[serial] = {**self.devices[serial], "state": "reserved", "fence": fence}
            if event == "release":
                for serial in argument["serials"] if self.reflash else ():
                    if serial in self.devices:
                        self.devices[serial] = {**self.devices[serial], "state": "available"}
                        await self.sio.emit("device", self.devices[serial], namespace="/worker")
                self.leases.pop(argument["lease"], None)
            return {"ok": True}

        return handle


class Listener:
    """A client's socket on control. `heard` keeps (serial, item) in order."""

    def __init__(self, url: str, name: str, *, headers: dict[str, str] | None = None, answer: bool = True) -> None:
        self.url = url
        self.name = name
        self.headers = headers or {}
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        self.answer = answer
        self.sio.on("event", self._on_event)

    async def _on_event(self, text: str) -> None:
        assert isinstance(text, str)
        message = json.loads(text)
        assert message["serial"]
        self.heard += [(message["serial"], item) for item in message["contents"]]
        if not self.answer:
            await asyncio.sleep(3600)

    async def connect(self, auth: Any = ..., transports: tuple[str, ...] = ("websocket",)) -> Listener:
        auth = {"client_id": self.name} if auth is ... else auth
        await self.sio.connect(self.url, auth=auth, headers=self.headers, transports=list(transports), wait_timeout=20)
        return self

    def count(self, event: str, serial: str | None = None) -> int:
        return sum(item["event"] == event and serial in (None, heard) for heard, item in self.heard)

    @property
    def amounts(self) -> list[int]:
        return [item["amount"] for _, item in self.heard if item["event"] == "devices_available"]

    async def close(self) -> None:
        await self.sio.disconnect()


class Api:
    """HTTP requests to control; each returns (status, decoded body)."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def ask(self, method: str, path: str, arguments: Any = None, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.url + path, json=arguments, **options) as response:
            text = await response.text()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    async def get(self, path: str, **arguments: Any) -> tuple[int, Any]:
        return await self.ask("GET", path, arguments)

    async def post(self, path: str, **arguments: Any) -> tuple[int, Any]:
        return await self.ask("POST", path, arguments)

    async def reserve(self, amount: int = 1, name: str = "bob", **more: Any) -> list[dict[str, Any]]:
        status, rows = await self.post(
            "/reserve", **{"kind": "pulsecount", "args": {}, **more}, amount=amount, name=name
        )
        assert status == 200, rows
        return rows

    async def amount(self) -> int:
        return (await self.get("/available"))[1]["amount"]

    async def states(self) -> dict[str, str]:
        return {row["serial"]: row["state"] for row in (await self.get("/devices", all=True))[1]}


class Served:
    """A control server that runs here; `stop` ends it as SIGTERM does."""

    def __init__(self, service: ControlService) -> None:
        self.service = service
        self.control = service.control
        self.url = ""

    async def __aenter__(self) -> Served:
        try:
            await self.service.start()
        except BaseException:
            await self.service.stop()  # as `core.service` does after a failed start
            raise
        self.url = self.service.url
        self._running: asyncio.Task[None] | None = asyncio.create_task(self.service.run())
        return self

    async def stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.service.stop()

    async def __aexit__(self, *problem: object) -> None:
        await self.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path) -> str:
    """An empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    return request.getfixturevalue("postgres_url")


Start = Callable[..., Awaitable[Served]]


@pytest.fixture
async def start(database: str) -> AsyncIterator[Start]:
    """Start a control server here: `await start(lease_s=1, ...)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def go(**settings: Any) -> Served:
            config = {"port": 0, "database": database, "tick_s": 0.02, "probe_s": 0.05, "dead_after_s": 0.1}
            return await stack.enter_async_context(Served(compose.control(ControlConfig(**{**config, **settings}))))

        yield go


@pytest.fixture
async def control(start: Start) -> Served:
    """A control server with the usual settings, and quick clocks."""
    return await start()


@pytest.fixture
async def api(control: Served) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(session, control.url)


@pytest.fixture
async def apis() -> AsyncIterator[Callable[[str], Api]]:
    """Make an Api for any address."""
    async with aiohttp.ClientSession() as session:
        yield lambda url: Api(session, url)


@pytest.fixture
async def workers() -> AsyncIterator[Callable[..., Awaitable[FakeWorker]]]:
    """Connect fake workers: `await workers(url, name, serials)`."""
    made: list[FakeWorker] = []

    async def make(control: str, *arguments: Any, **options: Any) -> FakeWorker:
        made.append(FakeWorker(control, *arguments, **options))
        return await made[-1].connect()

    yield make
    for worker in made:
        await worker.close()


@pytest.fixture
async def worker(control: Served, workers: Callable[..., Awaitable[FakeWorker]]) -> FakeWorker:
    """A worker with the boards A1 to A4, at an address where nothing listens."""
    return await workers(control.url)


@pytest.fixture
async def listeners() -> AsyncIterator[Callable[..., Awaitable[Listener]]]:
    """Connect clients' sockets: `await listeners(url, name)`."""
    made: list[Listener] = []

    async def make(url: str, name: str, transports: tuple[str, ...] = ("websocket",), **options: Any) -> Listener:
        made.append(Listener(url, name, **options))
        return await made[-1].connect(transports=transports)

    yield make
    for listener in made:
        await listener.close()
