"""A control and a worker in one small server that speak the wire and do exactly what a test tells them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import msgpack
import socketio
from aiohttp import web


class FakeFleet:
    """`answer(serial, id, data)` returns the value of an evaluation, or None to stay silent."""

    def __init__(self, serials: tuple[str, ...] = ("A", "B")) -> None:
        self.serials = serials
        self.held: dict[str, str] = {}  # serial -> lease token
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.requests: list[dict[str, Any]] = []
        self.tokens: dict[str, str] = {}  # sid -> lease token
        self.sids: set[str] = set()
        self.answer: Callable[[str, str, bytes], Any] = lambda serial, wire_id, data: str(len(data))
        self.acknowledge: Callable[[dict[str, Any]], Any] = lambda request: {"ok": True}
        self.replies: dict[str, Callable[[dict[str, Any]], Awaitable[tuple[int, Any]]]] = {}
        self.ready_at_once = True
        self.lease_s = 3600.0
        self.fence = 0
        self.url = ""
        self.waited = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self.sio = socketio.AsyncServer(async_mode="aiohttp", max_http_buffer_size=84_000_000)
        self.sio.on("connect", self._connect)
        self.sio.on("disconnect", lambda sid, *reason: self.sids.discard(sid))
        self.sio.on("present", self._present)
        self.sio.on("request", self._request)
        app = web.Application()
        app.router.add_route("*", "/{path:(?!socket.io).*}", self._http)
        self.sio.attach(app)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runner.cleanup()

    async def tell(self, serial: str, *items: dict[str, Any]) -> None:
        await self.sio.emit("event", json.dumps({"serial": serial, "contents": list(items)}))

    async def cut(self) -> None:
        """Drop every socket, as a server does that is killed."""
        for sid in list(self.sids):
            await self.sio.disconnect(sid)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.waited:
            await self.waited.wait_for(holds)

    async def _note(self) -> None:
        async with self.waited:
            self.waited.notify_all()

    async def _connect(self, sid: str, environ: dict[str, Any], auth: dict[str, Any]) -> None:
        assert auth["client_id"]
        self.sids.add(sid)
        for token in auth.get("leases", ()):
            await self._present(sid, token)

    async def _present(self, sid: str, token: str) -> dict[str, Any]:
        if token not in self.held.values():
            return {"error": {"code": "lease_refused", "message": "This lease is over."}}
        self.tokens[sid] = token
        for serial, held in self.held.items():
            if held == token and self.ready_at_once:
                await self.tell(serial, {"event": "initialized"})
        return {"ok": True}

    async def _request(self, sid: str, data: bytes) -> Any:
        message = msgpack.unpackb(data)
        self.requests.append(message)
        contents = message["contents"]
        for serial in [message["serial"]] if isinstance(message["serial"], str) else message["serial"]:
            for wire_id, file in contents.get("files", {}).items():
                value = self.answer(serial, wire_id, file)
                if value is not None:
                    await self.results(serial, contents["batch_id"], [[wire_id, value]])
        await self._note()
        return self.acknowledge(message)

    async def results(self, serial: str, batch_id: str, pairs: list[Any]) -> None:
        await self.tell(serial, {"event": "results", "batch_id": batch_id, "results": pairs})

    async def _http(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        self.posts.append((request.path, body))
        await self._note()
        reply = self.replies.get(request.path, self._usual(request.path))
        status, answer = await reply(body)
        return web.json_response(answer, status=status)

    def _usual(self, path: str) -> Callable[[dict[str, Any]], Awaitable[tuple[int, Any]]]:
        async def reply(body: dict[str, Any]) -> tuple[int, Any]:
            free = [serial for serial in self.serials if serial not in self.held]
            if path == "/available":
                return 200, {"amount": len(free)}
            if path in ("/reserve", "/reserveserials"):
                taken = body.get("serials", free[: body.get("amount", 0)])
                if len(taken) < body.get("amount", 0):
                    return 409, {"error": {"code": "not_enough_devices", "message": "Too few are free."}}
                self.fence += 1
                token = f"fsl_token_{self.fence:08d}"
                self.held |= dict.fromkeys(taken, token)
                until = (datetime.now(UTC) + timedelta(seconds=self.lease_s)).isoformat()
                row = {"url": f"http://lease:{token}@127.0.0.1:{self.port}", "lease": token, "fence": self.fence}
                return 200, [{**row, "serial": s, "until": until, "ip": "x", "serverport": 1} for s in taken]
            if path in ("/end", "/endall"):
                ended = [s for s in body.get("serials", list(self.held)) if self.held.pop(s, None)]
                return 200, ended
            if path in ("/extend", "/extendall"):
                return 200, [s for s in body.get("serials", self.serials) if s in self.held]
            if path == "/reboot":
                for serial in body["serials"]:
                    await self.tell(serial, {"event": "initialized"})
                return 200, body["serials"]
            return 404, {"error": {"code": "bad_request", "message": f"no {path}"}}

        return reply
