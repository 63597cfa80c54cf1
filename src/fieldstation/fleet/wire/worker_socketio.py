"""The worker's Socket.IO server: clients present leases, send requests, and get their events confirmed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import socketio
from socketio.exceptions import ConnectionRefusedError as Refused

from fieldstation.core.security import Principal, Role
from fieldstation.fleet.delivery import Session
from fieldstation.fleet.errors import BadRequestError, FleetError
from fieldstation.fleet.refusals import acknowledgement, problem, refusal
from fieldstation.fleet.wire.guard import PRINCIPAL
from fieldstation.fleet.wire.slow import drop_if_behind
from fieldstation.fleet.wire.socket_log import socket_log
from fieldstation.fleet.wire.worker_requests import parse
from fieldstation.fleet.worker import Worker

log = logging.getLogger(__name__)

TRANSPORT_LIMIT = 100_000_000  # somewhat more than a message may have, so that a refusal can be a sentence
SOCKETS_PER_CLIENT = 64
LEASES_PER_SOCKET = 1000
PRESENT_S = 5.0  # how long a lease that control has just made may take to get here
GRACEFUL = "graceful_shutdown"


class WorkerSockets:
    """The sockets of clients. `run` must be running for anything to be sent."""

    def __init__(self, worker: Worker, shut_down: Callable[[], None]) -> None:
        self.worker = worker
        self.sio = socketio.AsyncServer(
            async_mode="asgi",
            ping_interval=10,  # 25 as documented; sooner, a dead line is noticed sooner
            ping_timeout=60,  # as documented: slow Wi-Fi, large uploads
            max_http_buffer_size=TRANSPORT_LIMIT,
            engineio_logger=socket_log(),
            cors_allowed_origins=None,  # this origin only; the guard has looked as well
            async_handlers=False,  # one socket's requests in their order, and no more read than worked off
        )
        self._shut_down = shut_down
        self._sessions: dict[str, Session] = {}
        self._operators: set[str] = set()
        self._clients: Counter[str] = Counter()
        self._outgoing: asyncio.Queue[tuple[str, str, Callable[[], None]]] = asyncio.Queue()
        self.sio.on("connect", self._connect)
        self.sio.on("disconnect", self._disconnect)
        self.sio.on("request", self._request)
        self.sio.on("present", self._present)
        self.sio.on(GRACEFUL, self._graceful_shutdown)

    async def run(self) -> None:
        """Send what is to be sent, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_all(), name="events to clients")
            group.create_task(self._drain_when_asked(), name="graceful shutdown")

    async def _send_all(self) -> None:
        while True:
            sid, text, confirmed = await self._outgoing.get()
            if sid in self._sessions and not await drop_if_behind(self.sio, sid):
                await self.sio.emit("event", text, to=sid, callback=lambda *_, done=confirmed: done())

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object = None) -> None:
        told = auth if isinstance(auth, Mapping) else {}
        client = told.get("client_id")
        if not isinstance(client, str) or not client or len(client) > 200:
            raise Refused("client_id is missing: the hand-shake's auth payload must be {'client_id': NAME}.")
        if self._clients[client] >= SOCKETS_PER_CLIENT:
            raise Refused(f"client_id {client} has {SOCKETS_PER_CLIENT} sockets here already; close some.")
        if len(leases := _strings(told.get("leases"))) > LEASES_PER_SOCKET:
            raise Refused(f"leases has {len(leases)} entries; a socket presents at most {LEASES_PER_SOCKET}.")

        def send(text: str, confirmed: Callable[[], None]) -> None:
            self._outgoing.put_nowait((sid, text, confirmed))

        session = Session(client, ours="fieldstation" in told, send=send)
        self._clients[client] += 1
        self._sessions[sid] = session
        principal = environ.get("asgi.scope", {}).get(PRINCIPAL)
        if isinstance(principal, Principal) and principal.role >= Role.OPERATOR:
            self._operators.add(sid)
        self.worker.open(session)
        for token in filter(None, [lease_token(environ.get("HTTP_AUTHORIZATION", "")), *leases]):
            self.worker.present(session, token)

    async def _disconnect(self, sid: str, reason: object = None) -> None:
        session = self._sessions.pop(sid, None)
        self._operators.discard(sid)
        if session is not None:
            self._clients[session.client] -= 1
            if not self._clients[session.client]:
                del self._clients[session.client]
            self.worker.close(session)

    async def _request(self, sid: str, data: object = None) -> dict[str, Any]:
        session = self._sessions[sid]
        try:
            request = parse(data)
        except BadRequestError as error:
            session.send(refusal("meta", error), _nothing)
            return acknowledgement(error)
        refused: dict[str, FleetError] = {}
        for serial in request.serials:
            try:
                self.worker.request(session, serial, request.event, request.contents)
            except FleetError as error:
                refused[serial] = error
                self.worker.refuse(session, serial, error)
        if len(refused) == len(request.serials):
            return acknowledgement(next(iter(refused.values())))
        return {"ok": True, "refused": {serial: problem(error) for serial, error in refused.items()}}

    async def _present(self, sid: str, token: object = None) -> dict[str, Any]:
        if not isinstance(token, str) or not token:
            return acknowledgement(BadRequestError(field="lease", problem="it must be a lease token"))
        session = self._sessions[sid]
        if len(session.unknown) >= LEASES_PER_SOCKET:
            return acknowledgement(BadRequestError(field="lease", problem="too many of this socket are unknown here"))
        if not self.worker.present(session, token) and not await self.worker.expect(session, token, PRESENT_S):
            return acknowledgement(
                BadRequestError(field="lease", problem="no reservation on this worker has this token")
            )
        return {"ok": True}

    async def _graceful_shutdown(self, sid: str, argument: object = None) -> dict[str, Any]:
        if sid not in self._operators:
            refused = FleetError("Shutting a worker down needs the role operator.", code="forbidden")
            self._sessions[sid].send(refusal("meta", refused), _nothing)
            return acknowledgement(refused)
        self.worker.drain()
        return {"ok": True}

    async def _drain_when_asked(self) -> None:
        await self.worker.draining_began.wait()
        await self.sio.emit("graceful_shutdown_initilized")  # spelled as documented
        try:
            await self.worker.drained()
        except Exception:
            await self.sio.emit("shutdown_aborted", "")
            raise
        await self.sio.emit("shutdown_complete", "")
        # The notice must leave before the process does.
        await asyncio.sleep(0.2)
        self._shut_down()


def lease_token(authorization: str) -> str | None:
    """Return the token of `http://lease:<token>@worker`, which arrives as HTTP Basic, or None."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, token = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return token if user == "lease" and token else None


def _strings(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _nothing() -> None:
    pass
