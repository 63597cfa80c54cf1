"""Events for holders: kept until confirmed, sent again when not, handed to the next socket when one went away."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from fieldstation.fleet.worker_store import WorkerStore

log = logging.getLogger(__name__)

CONFIRM_S = 5.0  # without a confirmation for this long an event is sent again
PERSIST_S = 0.05  # an event confirmed sooner never touches the disk
# Today's clients begin to wait for `initialized` only after their worker socket is open, and forget an earlier one.
FIRST_S = 0.3
REPEATS_S = (0.5, 1.0, 2.0, 5.0, 10.0)
CERTAIN = 2  # announcements that go out even when a request has come in: it may have been under way for long


@dataclass(eq=False, slots=True)
class Session:
    """One socket of a client. `send(text, confirmed)` emits the wire's `event`; `confirmed` may be called later.

    `leases` are the ids of those it has presented; `unknown` the token hashes that control may yet tell us about.
    """

    client: str
    ours: bool
    send: Callable[[str, Callable[[], None]], None]
    leases: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Parcel:
    """One event message under way to a holder."""

    id: int
    lease: str
    serial: str
    body: str
    session: Session | None = None
    sent_at: float = 0.0
    stored: bool = False


class Delivery:
    """All that is owed to holders, by lease. Call from the event loop."""

    def __init__(self, store: WorkerStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._sessions: dict[str, list[Session]] = {}
        self._owed: dict[str, dict[int, Parcel]] = {}
        self._unstored: list[Parcel] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[tuple[str, str], _Announcement] = {}

    def restore(self, events: Iterable[tuple[int, str, str, str]]) -> None:
        """Owe again what an earlier process of this worker owed."""
        for number, lease, serial, body in events:
            self._owed.setdefault(lease, {})[number] = Parcel(number, lease, serial, body, stored=True)

    def sockets(self, lease: str) -> int:
        """Return how many sockets present this lease."""
        return len(self._sessions.get(lease, ()))

    def sessions(self) -> set[Session]:
        """Return every session that presents something."""
        return {session for sessions in self._sessions.values() for session in sessions}

    def owed(self, lease: str) -> int:
        """Return how many events of this lease are not confirmed."""
        return len(self._owed.get(lease, ()))

    def owed_in_all(self) -> int:
        """Return how many events are not confirmed, of all leases."""
        return sum(map(len, self._owed.values()))

    def attach(self, session: Session, lease: str) -> None:
        """A socket presents a lease: it gets what is owed to it."""
        session.leases.add(lease)
        sessions = self._sessions.setdefault(lease, [])
        if session not in sessions:
            sessions.append(session)
        for parcel in list(self._owed.get(lease, {}).values()):
            if parcel.session is None or parcel.session not in sessions:
                self._send(parcel)
        for (owner, serial), announcement in list(self._waiting.items()):
            if owner == lease:
                announcement.cancel()
                self.initialized(lease, serial)

    def detach(self, session: Session) -> None:
        """A socket is gone: what it has not confirmed goes to another one of the lease, now or later."""
        for lease in session.leases:
            sessions = self._sessions.get(lease, [])
            if session in sessions:
                sessions.remove(session)
            if not sessions:
                self._sessions.pop(lease, None)
            for parcel in list(self._owed.get(lease, {}).values()):
                if parcel.session is session:
                    parcel.session = None
                    self._send(parcel)

    def post(self, lease: str, serial: str, items: list[dict[str, Any]]) -> None:
        """Owe the holder a message with these items, and send it when there is a socket."""
        body = json.dumps({"serial": serial, "contents": items})
        parcel = Parcel(self._store.new_event_id(), lease, serial, body)
        self._owed.setdefault(lease, {})[parcel.id] = parcel
        self._unstored.append(parcel)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PERSIST_S, self._persist)
        self._send(parcel)

    def initialized(self, lease: str, serial: str) -> None:
        """Announce that the device takes requests: at once to our client, later and again to others."""
        sessions = self._sessions.get(lease)
        announcement = self._waiting[lease, serial] = _Announcement()
        if not sessions:
            return  # attach comes back to it
        if sessions[-1].ours:
            self.post(lease, serial, [{"event": "initialized"}])
        else:
            self._announce_later(lease, serial, announcement, FIRST_S)

    def _announce_later(self, lease: str, serial: str, announcement: _Announcement, delay_s: float) -> None:
        def announce() -> None:
            for session in self._sessions.get(lease, [])[-1:]:
                session.send(json.dumps({"serial": serial, "contents": [{"event": "initialized"}]}), _nothing)
            announcement.sent += 1
            if announcement.sent <= len(REPEATS_S) and not (announcement.answered and announcement.sent >= CERTAIN):
                self._announce_later(lease, serial, announcement, REPEATS_S[announcement.sent - 1])

        announcement.timer = asyncio.get_running_loop().call_later(delay_s, announce)

    def answered(self, lease: str, serial: str) -> None:
        """A request for the device came in, so its holder knows that it is initialized."""
        announcement = self._waiting.get((lease, serial))
        if announcement is not None:
            announcement.answered = True
            if announcement.timer is None or announcement.sent >= CERTAIN:
                announcement.cancel()
                del self._waiting[lease, serial]

    def silence(self, lease: str, serial: str) -> None:
        """Announce this device no more: the lease lost it."""
        announcement = self._waiting.pop((lease, serial), None)
        if announcement is not None:
            announcement.cancel()

    def sweep(self) -> None:
        """Send again what was not confirmed in time."""
        now = self._clock()
        for parcels in list(self._owed.values()):
            for parcel in list(parcels.values()):
                if parcel.session is not None and now - parcel.sent_at >= CONFIRM_S:
                    self._send(parcel)

    def forget(self, lease: str) -> None:
        """Owe nothing to this lease any more, which ended long ago."""
        self._owed.pop(lease, None)
        watch(self._store.forget(lease))

    def _send(self, parcel: Parcel) -> None:
        sessions = self._sessions.get(parcel.lease)
        if sessions:
            parcel.session, parcel.sent_at = sessions[-1], self._clock()
            parcel.session.send(parcel.body, lambda: self._confirmed(parcel))

    def _confirmed(self, parcel: Parcel) -> None:
        owed = self._owed.get(parcel.lease, {})
        if owed.pop(parcel.id, None) is None:
            return
        if not owed:
            self._owed.pop(parcel.lease, None)
        if parcel.stored:
            watch(self._store.delivered(parcel.id))

    def _persist(self) -> None:
        self._timer = None
        waiting, self._unstored = self._unstored, []
        owed = [parcel for parcel in waiting if parcel.id in self._owed.get(parcel.lease, {})]
        if owed:
            for parcel in owed:
                parcel.stored = True
            watch(self._store.save_events((p.id, p.lease, p.serial, p.body) for p in owed))

    def persist_now(self) -> None:
        """Write what is owed to disk, before the process ends."""
        if self._timer is not None:
            self._timer.cancel()
        self._persist()


@dataclass(eq=False, slots=True)
class _Announcement:
    timer: asyncio.TimerHandle | None = None
    sent: int = 0
    answered: bool = False

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _nothing() -> None:
    pass


def watch(written: Future[None]) -> None:
    """Log a write that failed; the thing itself goes on in memory."""

    def done(future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("the worker's store could not be written: %s", error)

    written.add_done_callback(done)
