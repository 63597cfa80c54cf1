"""Control's end of the line to workers: Socket.IO namespace `/worker` (docs/reference/fleet-wire.md)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import socketio
from pydantic import BaseModel

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Principal, Role
from fieldstation.fleet.control import Control
from fieldstation.fleet.errors import BadRequestError, FleetError, WorkerUnreachableError
from fieldstation.fleet.wire import line_codec as codec
from fieldstation.fleet.wire.faults import body_of
from fieldstation.fleet.wire.remote_log import write_remote
from fieldstation.fleet.wire.socketio_clients import principal_of, refuse_unless_leading, refused

log = logging.getLogger(__name__)

NAMESPACE = "/worker"

M = TypeVar("M", bound=BaseModel)


class WorkerRefusedError(FleetError):
    """The worker {worker} refused {what}: {problem}"""


class WorkerLines:
    """The sockets of workers. `attach` must be called with the control before the first one comes."""

    def __init__(self, sio: socketio.AsyncServer) -> None:
        self.sio = sio
        self.control: Control | None = None
        self._names: dict[str, tuple[str, Principal]] = {}
        self._said_hello: dict[str, str] = {}  # worker -> its socket
        self._peers: dict[str, str] = {}  # socket -> the address that it comes from
        self._answers: dict[str, set[asyncio.Future[Any]]] = {}

    def attach(self, control: Control) -> None:
        """Serve this control."""
        self.control = control
        on = self.sio.on
        on("connect", self._connect, namespace=NAMESPACE)
        on("disconnect", self._disconnect, namespace=NAMESPACE)
        on("hello", self._hello, namespace=NAMESPACE)
        lines = control.lines
        self._serve("beat", codec.BeatMessage, lambda worker, message: None)
        self._serve(
            "device", codec.DeviceMessage, lambda worker, message: lines.report(worker, message.to_model(worker))
        )
        self._serve("gone", codec.GoneMessage, lambda worker, message: lines.gone(worker, message.serial))
        self._serve(
            "presence",
            codec.PresenceMessage,
            lambda worker, message: lines.presence(worker, message.lease, message.sockets),
        )
        self._serve(
            "failed",
            codec.FailedMessage,
            lambda worker, message: lines.failed(worker, message.lease, message.serial, message.reason),
        )
        self._serve("step", codec.StepMessage, lambda worker, message: lines.step(worker, message.to_model(worker)))
        self._serve("draining", codec.BeatMessage, lambda worker, message: lines.draining(worker))
        self._serve(
            "log",
            codec.LogMessage,
            lambda worker, message: write_remote(worker, self._peer_of(worker), message.logs),
        )

    async def call(self, worker: str, event: str, argument: Mapping[str, Any], limit_s: float) -> Mapping[str, Any]:
        """Say something to a worker and return its answer; see `control.leases.Call`."""
        sid = self._said_hello.get(worker)
        if sid is None:
            raise WorkerUnreachableError(worker=worker, what=event)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waiting = self._answers.setdefault(sid, set())
        waiting.add(answer)

        def acknowledged(*arguments: Any) -> None:
            if not answer.done():
                answer.set_result(arguments[0] if arguments else None)

        try:
            async with asyncio.timeout(limit_s):
                await self.sio.emit(event, dict(argument), to=sid, namespace=NAMESPACE, callback=acknowledged)
                got = await answer
        except TimeoutError as error:
            raise WorkerUnreachableError(worker=worker, what=event) from error
        finally:
            waiting.discard(answer)
        told: Mapping[str, Any] = got if isinstance(got, Mapping) else {}
        if isinstance(problem := told.get("error"), Mapping):
            raise WorkerRefusedError(worker=worker, what=event, problem=problem.get("message") or problem.get("code"))
        return told

    def _peer_of(self, worker: str) -> str:
        return self._peers.get(self._said_hello.get(worker, ""), "")

    async def hang_up(self) -> None:
        """Close every line."""
        for sid in list(self._names):
            await self.sio.disconnect(sid, namespace=NAMESPACE)

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object = None) -> None:
        assert self.control is not None
        refuse_unless_leading(self.control)
        name = auth.get("worker") if isinstance(auth, Mapping) else None
        if not isinstance(name, str) or not name or len(name) > 200:
            raise refused("worker is missing: the hand-shake's auth payload must be {'worker': NAME}.")
        principal = await principal_of(self.control, environ, auth, Role.OPERATOR)
        peer = environ.get("asgi.scope", {}).get("client") or ("", 0)
        self._names[sid], self._peers[sid] = (name, principal), str(peer[0])

    async def _disconnect(self, sid: str, reason: object = None) -> None:
        name, _ = self._names.pop(sid, ("", None))
        self._peers.pop(sid, None)
        for answer in self._answers.pop(sid, set()):
            if not answer.done():
                answer.set_exception(WorkerUnreachableError(worker=name, what="the last command"))
        if self._said_hello.get(name) == sid:
            del self._said_hello[name]
        if self.control is not None and name:
            self.control.lines.lost(name, sid)

    async def _hello(self, sid: str, data: object = None) -> Mapping[str, Any]:
        assert self.control is not None
        name, principal = self._names[sid]
        try:
            self.control.must_lead()
            message = codec.read(codec.HelloMessage, data)
            if message.name != name:
                raise BadRequestError(field="name", problem="it is not the name of the hand-shake")
            devices = [device.to_model(name) for device in message.devices]
            answer = self.control.lines.hello(principal, sid, message.to_model(), devices, message.leases)
        except FieldstationError as error:
            log.warning("hello of worker %s refused: %s", name, error)
            return body_of(error)
        self._said_hello[name] = sid
        return {"ok": True, **answer}

    def _serve(self, event: str, model: type[M], act: Callable[[str, M], object]) -> None:
        # What a handler does before its first await is done in the order of arrival, and these have no await.
        async def handle(sid: str, data: object = None) -> Mapping[str, Any]:
            assert self.control is not None
            name, _ = self._names[sid]
            try:
                message = codec.read(model, {} if data is None else data)
                self.control.lines.heard(name, sid)
                act(name, message)
            except FieldstationError as error:
                log.warning("%s of worker %s refused: %s", event, name, error)
                return body_of(error)
            return {"ok": True}

        self.sio.on(event, handle, namespace=NAMESPACE)
