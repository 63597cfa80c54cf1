"""What one client is connected to: the control by HTTP and by socket, the workers by sockets, and its tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import aiohttp

from fieldstation import __version__
from fieldstation.fleet.client.address import parse_all
from fieldstation.fleet.client.background import Background
from fieldstation.fleet.client.http import Control, new_session
from fieldstation.fleet.client.line import Line
from fieldstation.fleet.client.workers import Workers
from fieldstation.fleet.errors import ControlUnreachableError
from fieldstation.fleet.wire.leader_watch import until_another_leads

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0


class Connection:
    """The lines of a client called `name`. A subclass says what to do with what they bring."""

    def __init__(self, control: str | Iterable[str], name: str, *, token: str | None = None) -> None:
        self.name = name
        self.background = Background()
        self._addresses = parse_all(control, token)
        self._session: aiohttp.ClientSession | None = None
        self._control: Control | None = None
        self._workers: Workers | None = None

    @property
    def control(self) -> Control:
        """The control server, for calls that have no method here."""
        if self._control is None:
            raise RuntimeError("This client was not started.")
        return self._control

    @property
    def workers(self) -> Workers:
        """The lines to our devices' workers."""
        if self._workers is None:
            raise RuntimeError("This client was not started.")
        return self._workers

    def hear(self, message: Any = None, *_: Any) -> None:
        """Take one `event` message of control or a worker; must not block."""
        raise NotImplementedError

    def worker_is_up(self, url: str) -> None:
        """Hear that the line to a worker stands (again)."""
        raise NotImplementedError

    async def connect(self) -> None:
        """Reach the control; ControlUnreachableError, or the reason why it turns us away, when that fails."""
        self._session = new_session()
        self._control = Control(self._session, self._addresses)
        await self.background.open()
        self._workers = Workers(self._session, self.background, self.name, on_event=self.hear, on_up=self.worker_is_up)
        try:
            # The plain request first: its refusal has a reason, a failed hand-shake often none.
            several = len(self._addresses) > 1
            await self._control.post("/available", {}, patience_s=None if several else 0.0)
            await self._hold_line(self._session, self._control)
        except BaseException:
            await self.hang_up()
            raise

    async def _hold_line(self, session: aiohttp.ClientSession, control: Control) -> None:
        line = Line(
            session,
            lambda: control.addresses,
            auth=lambda: {"client_id": self.name, "fieldstation": __version__},
            on_event=self.hear,
        )
        self.background.spawn(line.run(), "line to control")
        if len(self._addresses) > 1:
            self.background.spawn(self._follow_leader(session, control, line), "watch of the leader")
        if not await line.wait_up(CONNECT_TIMEOUT_S):
            problem = line.refusal or f"no hand-shake within {CONNECT_TIMEOUT_S:g} s"
            raise ControlUnreachableError(url=control.addresses[0].url, problem=problem)

    async def _follow_leader(self, session: aiohttp.ClientSession, control: Control, line: Line) -> None:
        targets = [(address.url, address.headers) for address in self._addresses]
        while True:
            leader = await until_another_leads(session, line.url or control.addresses[0].url, targets)
            log.warning("the control at %s leads by now", leader)
            control.prefer(leader)
            line.renew()

    async def hang_up(self) -> None:
        """Cancel all tasks and close all lines; any number of times."""
        await self.background.close()
        if self._session is not None:
            await self._session.close()
