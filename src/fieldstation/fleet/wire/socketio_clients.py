"""Clients' sockets on control: presence, and the documented `event` messages with acknowledgement and repetition."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import socketio

from fieldstation.core.security import Principal, Role
from fieldstation.fleet.control import Control
from fieldstation.fleet.control.told import Leased, News, Told, available
from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.model import Holder
from fieldstation.fleet.wire.guard import PRINCIPAL
from fieldstation.fleet.wire.slow import drop_if_behind

log = logging.getLogger(__name__)

REPEAT_S = 5.0  # an event that was not acknowledged is sent again
KEEP_S = 600.0  # and kept so long for a client that is away
KEEP_MANY = 1000  # per client


@dataclass(slots=True)
class Pending:
    """An event that its client has not acknowledged."""

    told: Told
    since: float
    sent_at: float | None = None


def refused(message: str) -> socketio.exceptions.ConnectionRefusedError:
    """Turn a hand-shake down with a reason that the client is shown."""
    return socketio.exceptions.ConnectionRefusedError(message)


def refuse_unless_leading(control: Control) -> None:
    """Turn a hand-shake down on a control that stands by."""
    try:
        control.must_lead()
    except NotLeaderError as error:
        raise refused(str(error)) from None


async def principal_of(control: Control, environ: Mapping[str, Any], auth: object, needed: Role) -> Principal:
    """Return who shakes hands: by header or address (the guard has looked), otherwise by `token` in the payload."""
    principal: Principal | None = environ.get("asgi.scope", {}).get(PRINCIPAL)
    token = auth.get("token") if isinstance(auth, Mapping) else None
    if isinstance(token, str) and token:
        principal = await control.authenticate(token)
    if principal is None:
        raise refused("This server needs a token, and did not get a valid one.")
    if principal.role < needed:
        raise refused(f"{principal.user} has the role {principal.role.name.lower()}; {needed.name.lower()} is needed.")
    return principal


class ClientSockets:
    """Namespace `/`."""

    def __init__(self, sio: socketio.AsyncServer, control: Control) -> None:
        self.sio = sio
        self.control = control
        self._holders: dict[str, Holder] = {}
        self._sockets: dict[Holder, set[str]] = {}
        self._pending: dict[Holder, dict[int, Pending]] = {}
        self._numbers = itertools.count()
        self._outgoing: asyncio.Queue[News | str] = asyncio.Queue()  # news for everybody or a holder; or a new socket
        sio.on("connect", self._connect)
        sio.on("disconnect", self._disconnect)
        self._amount: Told | None = None  # news for everybody that is not sent yet: only the newest counts
        control.events.subscribe(self._hear)

    def _hear(self, news: News) -> None:
        if isinstance(news, Told) and news.to is None:
            waiting, self._amount = self._amount, news
            if waiting is not None:
                return
        self._outgoing.put_nowait(news)

    def load(self) -> dict[str, int]:
        """Return how many sockets and unacknowledged events there are."""
        return {"sockets": len(self._holders), "unacknowledged_events": sum(map(len, self._pending.values()))}

    async def hang_up(self) -> None:
        """Close every socket, and forget what they have not acknowledged."""
        self._pending.clear()
        for sid in list(self._holders):
            await self.sio.disconnect(sid)

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object = None) -> None:
        refuse_unless_leading(self.control)
        name = auth.get("client_id") if isinstance(auth, Mapping) else None
        if not isinstance(name, str) or not name or len(name) > 200:
            raise refused("client_id is missing: the hand-shake's auth payload must be {'client_id': NAME}.")
        principal = await principal_of(self.control, environ, auth, Role.VIEWER)
        holder = Holder(principal.user, name)
        if len(self._sockets.get(holder, ())) >= self.control.config.sockets_per_client:
            raise refused(f"client_id {name} has {self.control.config.sockets_per_client} open sockets already.")
        self._holders[sid] = holder
        self._sockets.setdefault(holder, set()).add(sid)
        self.control.client_connected(holder)
        self._outgoing.put_nowait(sid)

    async def _disconnect(self, sid: str, reason: object = None) -> None:
        holder = self._holders.pop(sid, None)
        if holder is None:
            return
        self._sockets[holder].discard(sid)
        if not self._sockets[holder]:
            del self._sockets[holder]
        self.control.client_gone(holder)

    async def run(self) -> None:
        """Carry events to sockets, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(), name="events to clients")
            group.create_task(self._repeat(), name="events again")

    async def _carry(self) -> None:
        while True:
            news = await self._outgoing.get()
            try:
                if isinstance(news, str):
                    await self._welcome(news)
                elif isinstance(news, Leased):
                    self._outdate(news)
                elif news.to is None:
                    await self._tell_everybody()
                else:
                    await self._tell(news.to, news)
            except Exception:
                log.exception("an event could not be sent")

    async def _tell_everybody(self) -> None:
        # Without acknowledgement, since the newest is all that counts; and encoded once for all.
        newest, self._amount = self._amount, None
        if newest is not None:
            await self.sio.emit("event", newest.text)
            for sid in list(self._holders):
                await self._drop_if_behind(sid)

    async def _drop_if_behind(self, sid: str) -> bool:
        behind = await drop_if_behind(self.sio, sid)
        self.control.record.counts.slow_clients += behind
        return behind

    async def _welcome(self, sid: str) -> None:
        holder = self._holders.get(sid)
        if holder is None:
            return
        await self.sio.emit("event", available(self.control.amount).text, to=sid)
        for number, message in list(self._pending.get(holder, {}).items()):
            await self._send(holder, number, message)

    def _outdate(self, leased: Leased) -> None:
        for number, message in list(self._pending.get(leased.holder, {}).items()):
            if message.told.serial in leased.serials:
                self._acknowledged(leased.holder, number)

    async def _tell(self, holder: Holder, told: Told) -> None:
        waiting = self._pending.setdefault(holder, {})
        if len(waiting) >= KEEP_MANY:
            del waiting[next(iter(waiting))]
            self.control.record.counts.dropped_events += 1
        number = next(self._numbers)
        waiting[number] = Pending(told, time.monotonic())
        await self._send(holder, number, waiting[number])

    async def _send(self, holder: Holder, number: int, message: Pending) -> None:
        for sid in tuple(self._sockets.get(holder, ())):
            if number not in self._pending.get(holder, ()):
                return  # acknowledged or out of date meanwhile
            if await self._drop_if_behind(sid):
                continue
            message.sent_at = time.monotonic()
            acknowledged = partial(self._acknowledged, holder, number)
            await self.sio.emit("event", message.told.text, to=sid, callback=acknowledged)

    def _acknowledged(self, holder: Holder, number: int, *arguments: object) -> None:
        waiting = self._pending.get(holder, {})
        waiting.pop(number, None)
        if not waiting:
            self._pending.pop(holder, None)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for holder, waiting in list(self._pending.items()):
                for number, message in list(waiting.items()):
                    if now - message.since > KEEP_S:
                        self.control.record.counts.dropped_events += 1
                        self._acknowledged(holder, number)
                    elif message.sent_at is None or now - message.sent_at > REPEAT_S:
                        await self._send(holder, number, message)
