"""A worker process with simulated boards, a control that does what the test says, and bare clients of the worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import pytest_asyncio
import socketio

from fieldstation.core.security import hash_token
from fieldstation.fleet.wire.server import HttpServer
from fieldstation.testing import ServerProcess, eventually

QUICK = {"watchdog_s": 0.3, "answer_s": 1.0, "test_s": 2.0, "flash_s": 3.0, "replug_s": 1.5, "gone_s": 0.2}
FAULTS = ("drop_byte", "hang", "garbage", "unplug", "wrong_firmware", "mute", "ignore_touch", "wrong_disk")
A, B = "1111111111111111", "2222222222222222"


class WorkerProcess:
    """`fieldstation fleet worker --simulate`, and a line to its boards."""

    def __init__(self, folder: Path, control: str, **boards: Any) -> None:
        self.folder = folder
        self.control = control
        self.boards = {"boards": 2, "retry_s": 60.0, **boards}
        self.server: ServerProcess | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    @property
    def socket(self) -> str:
        return str(self.folder / "boards")

    async def start(self, *options: str, prefix: tuple[str, ...] = ()) -> None:
        """Start it, or start it again on the same port."""
        port = self.url.rpartition(":")[2] if self.server is not None else "0"
        config = self.folder / "worker.toml"
        settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.boards.items())
        config.write_text(
            f'[fleet.worker]\nname = "w"\ncontrol = "{self.control}"\ndriver = ["simulated"]\n'
            f"[fleet.worker.settings.simulated]\nsocket = {json.dumps(self.socket)}\n{settings}"
        )
        Path(self.socket).unlink(missing_ok=True)
        words = [*(prefix or ("fieldstation",)), "fleet", "worker", "--config", config, "--port", port]
        self.server = ServerProcess([*words, "--dir", self.folder / "state", *options])
        await asyncio.to_thread(self.server.wait_ready)

    async def kill(self) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.kill)

    async def tell_boards(self, **command: Any) -> None:
        """Plug, unplug, or give the boards faults."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        writer.write(json.dumps(command).encode() + b"\n")
        answer = json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
        assert answer == {"ok": True}, answer


NAMESPACE = "/worker"


class FakeControl:
    """`devices` is what the worker last reported; `told` is all that it said, in order."""

    holder: type[Holder]

    def __init__(self, port: int = 0) -> None:
        self.devices: dict[str, dict[str, Any]] = {}
        self.told: list[tuple[str, Any]] = []
        self.leases: dict[str, dict[str, Any]] = {}  # what the next hello is answered with
        self.made: list[dict[str, Any]] = []  # every lease there ever was
        self.refuse: str | None = None
        self.refuse_beats = False
        self.hellos = 0
        self.sid: str | None = None
        self.auth: Any = None
        self.sio = socketio.AsyncServer(async_mode="asgi")
        self.sio.on("connect", self._connect, namespace=NAMESPACE)
        self.sio.on("disconnect", self._disconnect, namespace=NAMESPACE)
        for event in ("hello", "device", "gone", "beat", "presence", "failed", "draining", "log"):
            self.sio.on(event, self._handler(event), namespace=NAMESPACE)
        self.server = HttpServer(socketio.ASGIApp(self.sio), host="127.0.0.1", port=port)
        self.server.bind()
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self.server.url

    async def __aenter__(self) -> FakeControl:
        self._task = asyncio.create_task(self.server.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Go away; the port refuses afterwards."""
        if self._task is not None:
            await self.sio.shutdown()
            if self.sid is not None:
                await self.sio.disconnect(self.sid, namespace=NAMESPACE)
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
            self.server.close()

    async def _connect(self, sid: str, environ: Any, auth: Any = None) -> None:
        self.auth = auth

    async def _disconnect(self, sid: str, reason: Any = None) -> None:
        if sid == self.sid:
            self.sid = None

    def _handler(self, event: str) -> Any:
        async def handle(sid: str, body: Any) -> dict[str, Any]:
            if event == "hello" and self.refuse:
                return {"error": {"code": self.refuse, "message": "not here"}}
            self.told.append((event, body))
            if event == "beat" and self.refuse_beats:
                return {"error": {"code": "bad_request", "message": "say hello first"}}
            if event == "hello":
                self.sid = sid
                self.hellos += 1
                self.devices = {device["serial"]: device for device in body["devices"]}
                return {"ok": True, "leases": list(self.leases.values()), "beat_s": 0.2}
            if event == "device":
                self.devices[body["serial"]] = body
            if event == "gone":
                self.devices.pop(body["serial"], None)
            return {"ok": True}

        return handle

    def said(self, event: str) -> list[Any]:
        return [body for name, body in self.told if name == event]

    async def call(self, event: str, body: Any) -> Any:
        return await self.sio.call(event, body, to=self.sid, namespace=NAMESPACE, timeout=5)

    async def available(self, *serials: str) -> None:
        """Wait until these devices are reported as available."""
        await eventually(
            lambda: all(self.devices.get(s, {}).get("state") == "available" for s in serials),
            15,
            what=f"{serials} available",
        )

    def lease(self, *serials: str, kind: str = "pulsecount", for_s: float = 60.0, **args: Any) -> tuple[dict, str]:
        """Make a lease with the next fencing numbers; returns it and its token."""
        token = f"fsl_{secrets.token_hex(8)}"
        fences = {serial: self.devices.get(serial, {}).get("fence", 0) + 1 for serial in serials}
        lease = {"id": secrets.token_hex(4), "token_hash": hash_token(token), "user": "u", "client": "me"}
        lease |= {"kind": kind, "args": args, "fences": fences, "for_s": for_s}
        self.made.append(lease)
        return lease, token

    async def assign(self, *serials: str, **more: Any) -> tuple[dict, str]:
        """Lease devices; the worker must accept."""
        lease, token = self.lease(*serials, **more)
        answer = await self.call("assign", lease)
        assert answer == {"ok": True, "refused": {}}, answer
        self.leases[lease["id"]] = lease
        return lease, token

    async def release(self, lease: dict, *serials: str) -> None:
        self.leases.pop(lease["id"], None)
        chosen = list(serials or lease["fences"])
        assert "error" not in await self.call(
            "release", {"lease": lease["id"], "serials": chosen, "reason": "ended by its holder"}
        )


class Holder:
    """`ours=False` behaves as a published client does: the lease is in the address, nothing else is said."""

    BASE = os.urandom(104_090 - 8)

    @classmethod
    def bitstream(cls, number: int) -> bytes:
        """Return a bitstream unlike all others of this run."""
        return number.to_bytes(8, "big") + cls.BASE

    def __init__(
        self, url: str, *tokens: str, ours: bool = True, client: str = "me", transports=("websocket",)
    ) -> None:
        self.url = url
        self.tokens = tokens
        self.ours = ours
        self.client = client
        self.transports = list(transports)
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        self.deaf = False  # throws events away without confirming them
        self.sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        self.sio.on("event", self._event)
        self.notices: list[str] = []
        for name in ("graceful_shutdown_initilized", "shutdown_complete", "shutdown_aborted"):
            self.sio.on(name, lambda *_, n=name: self.notices.append(n))

    async def __aenter__(self) -> Holder:
        auth: dict[str, Any] = {"client_id": self.client}
        url = self.url
        if self.ours:
            auth |= {"fieldstation": "1", "leases": list(self.tokens)}
        elif self.tokens:
            url = url.replace("://", f"://lease:{self.tokens[0]}@")
        await self.sio.connect(url, auth=auth, transports=self.transports)
        return self

    async def __aexit__(self, *_: object) -> None:
        # A long poll that is open when the client leaves ends only with the server's next ping.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self.sio.disconnect()

    async def _event(self, text: str) -> None:
        if self.deaf:
            await asyncio.sleep(3600)
        message = json.loads(text)
        for item in message["contents"]:
            self.events.append((asyncio.get_running_loop().time(), message["serial"], item))

    def of(self, event: str, serial: str | None = None) -> list[dict[str, Any]]:
        return [item for _, s, item in self.events if item["event"] == event and serial in (None, s)]

    async def until(self, event: str, serial: str | None = None, deadline_s: float = 10.0) -> dict[str, Any]:
        await eventually(lambda: self.of(event, serial), deadline_s, what=f"{event} of {serial}")
        return self.of(event, serial)[-1]

    def results(self, serial: str) -> dict[str, Any]:
        """Return id -> value; the same id with two different values is a failure."""
        found: dict[str, Any] = {}
        for item in self.of("results", serial):
            for key, value in item["results"]:
                assert found.setdefault(key, value) == value
        return found

    def reasons(self) -> dict[str, str]:
        return {key: why for item in self.of("results") for key, why in item.get("reasons", {}).items()}

    async def call(self, event: str, data: Any) -> Any:
        return await self.sio.call(event, data, timeout=10)

    async def request(self, serial: Any, event: str, contents: Any) -> Any:
        return await self.call("request", msgpack.packb({"serial": serial, "event": event, "contents": contents}))

    async def evaluate(self, serial: Any, *numbers: int, batch: str = "b") -> Any:
        return await self.request(
            serial, "evaluate", {"files": {str(n): self.bitstream(n) for n in numbers}, "batch_id": batch}
        )

    async def until_results(self, serial: str, count: int, deadline_s: float = 15.0) -> dict[str, Any]:
        await eventually(lambda: len(self.results(serial)) >= count, deadline_s, what=f"{count} results of {serial}")
        return self.results(serial)


FakeControl.holder = Holder


class Fleet:
    """A control and a worker that belong together; `hold(token)` makes a client of the worker."""

    def __init__(self, control: FakeControl, worker: WorkerProcess) -> None:
        self.control = control
        self.worker = worker

    def hold(self, *tokens: str, **more: Any) -> Holder:
        return Holder(self.worker.url, *tokens, **more)

    async def restart(self, *options: str) -> None:
        """Start the killed worker again and wait until its boards are there."""
        hellos = self.control.hellos
        await self.worker.start(*options)
        await eventually(lambda: self.control.hellos > hellos)


@contextlib.asynccontextmanager
async def running_fleet(folder: Path, **boards: Any) -> AsyncIterator[Fleet]:
    async with FakeControl() as control:
        worker = WorkerProcess(folder, control.url, **boards)
        try:
            await worker.start()
            await control.available(A, B)
            yield Fleet(control, worker)
        finally:
            if worker.server is not None:
                await asyncio.to_thread(worker.server.stop)
                print(worker.server.output)  # shown with a test that failed


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with running_fleet(tmp_path_factory.mktemp("worker"), **QUICK) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(shared: Fleet) -> AsyncIterator[Fleet]:
    """A fleet that the module's tests share; afterwards every reservation is ended and both boards are as new."""
    yield shared
    control = shared.control
    for lease in control.made:
        # Some tests make leases that the worker refused or that are over; it then says so.
        await control.call("release", {"lease": lease["id"], "serials": list(lease["fences"]), "reason": "test over"})
    control.made.clear()
    control.leases.clear()
    await shared.worker.tell_boards(cmd="habits", faults=dict.fromkeys(FAULTS, 0))
    for serial in (A, B):
        await shared.worker.tell_boards(cmd="plug", serial=serial)
    await control.available(A, B)
    control.told.clear()


@pytest.fixture
def fleet_parts() -> tuple[type[FakeControl], type[WorkerProcess]]:
    """The classes, for tests that put a fleet together in their own way."""
    return FakeControl, WorkerProcess


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet for one test that kills or starves it."""
    async with running_fleet(tmp_path, **QUICK) as fleet:
        yield fleet
