"""A worker as control sees it: a Socket.IO client that speaks the line, with instant boards and no hardware."""

from __future__ import annotations

import asyncio
from typing import Any

import socketio


class FakeWorker:
    """Boards become reserved on `assign` and available again on `release`, at once. `calls` keeps what control said."""

    def __init__(
        self,
        control_url: str,
        name: str = "bench",
        serials: tuple[str, ...] = ("A1", "A2", "A3", "A4"),
        *,
        url: str = "http://127.0.0.1:9",
        kinds: tuple[str, ...] = ("pulsecount", "variance"),
        token: str | None = None,
    ) -> None:
        self.control_url = control_url
        self.name = name
        self.url = url
        self.kinds = kinds
        self.token = token
        self.devices: dict[str, dict[str, Any]] = {serial: self.device(serial) for serial in serials}
        self.leases: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}  # event -> what to answer instead; None: never answer
        self.hello_answer: dict[str, Any] = {}
        self.reflash = True
        self.background: set[asyncio.Task[None]] = set()
        self.sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        for event in ("assign", "extend", "release", "reboot", "delete", "drain"):
            self.sio.on(event, self._handler(event), namespace="/worker")

    def device(self, serial: str, state: str = "available", **more: Any) -> dict[str, Any]:
        found = {"serial": serial, "driver": "fake", "state": state, "health": "ok", "reason": "", "labels": {}}
        return {**found, "kinds": list(self.kinds), "fence": 0, **more}

    async def connect(self) -> FakeWorker:
        auth = {"worker": self.name, "token": self.token}
        await self.sio.connect(self.control_url, auth=auth, namespaces=["/worker"], transports=["websocket"])
        self.hello_answer = await self.hello()
        return self

    async def hello(self, **more: Any) -> dict[str, Any]:
        return await self.say(
            "hello",
            {
                "name": self.name,
                "url": self.url,
                "version": "0",
                "boot": "1",
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
