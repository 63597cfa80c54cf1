"""The queue of those who wait for devices: places that are kept while somebody asks for them."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from fieldstation.fleet.control.index import Index
from fieldstation.fleet.errors import BadRequestError, DeviceBusyError
from fieldstation.fleet.model import Device, Holder
from fieldstation.fleet.schedule import Plan, Waiting, Want, Why, estimate, fits, plan, why_waiting

FORGET_S = 30.0  # a ticket that nobody asks for


@dataclass(frozen=True, slots=True)
class Place:
    """What somebody who must wait is told. `position` counts from 1; `estimate_s` is when, at the latest, it is their
    turn unless leases are extended, or None."""

    ticket: str
    position: int
    why: Why
    estimate_s: float | None


class Queue:
    """Places in the queue, and the plan that comes of them. Plans are made once per change."""

    def __init__(self, index: Index, limit: int, lease_s: float, announce: Callable[[], None]) -> None:
        self._announce = announce  # what is kept for the queue is not free for others: the amount changes with it
        self.index = index
        self.limit = limit
        self.lease_s = lease_s
        self.closed = False
        self._places: dict[tuple[Holder, str], Waiting] = {}
        self._asked: dict[tuple[Holder, str], float] = {}
        self._held: dict[tuple[Holder, str], int] = {}
        self._orders = itertools.count()
        self._plan: Plan | None = None
        self._offers: list[Device] = []
        self._turns: dict[int, asyncio.Event] = {}  # by the place's order

    def changed(self) -> None:
        """Devices or places have changed: wake those who can be served now, and nobody else."""
        self._plan = None
        for order in self.plan().grants:
            self._wake(order)

    def _wake(self, order: int) -> None:
        if (turn := self._turns.pop(order, None)) is not None:
            turn.set()

    def _wake_all(self) -> None:
        for order in list(self._turns):
            self._wake(order)

    def close(self) -> None:
        """The server stops: send those who wait away with their tickets."""
        self.closed = True
        self._wake_all()

    def clear(self) -> None:
        """Forget all places: another control leads, and those who wait ask there with their tickets."""
        self._places.clear()
        self._asked.clear()
        self._held.clear()
        self._wake_all()
        self.changed()

    @property
    def length(self) -> int:
        """How many requests stand here."""
        return len(self._places)

    def longest_s(self) -> float:
        """How long the one has waited that came first."""
        return max((time.monotonic() - place.since for place in self._places.values()), default=0.0)

    def turn(self, place: Waiting) -> asyncio.Event:
        """Return what is set when the place can be served, or is no place any more. Ask for it before you look."""
        return self._turns.setdefault(place.order, asyncio.Event())

    def plan(self) -> Plan:
        """Who can be served now, and what is kept for those who cannot."""
        if self._plan is None:
            self._offers = self.index.offers()
            self._plan = plan(self._places.values(), self._offers, self.index.busy(), time.monotonic())
        return self._plan

    def free(self) -> list[Device]:
        """Devices for somebody who does not stand in the queue."""
        kept = self.plan().kept
        return [device for device in self._offers if device.serial not in kept]

    def enter(self, want: Want, ticket: str | None) -> Waiting:
        """Take a place, or come back to it with its ticket."""
        key = (want.holder, ticket or uuid.uuid4().hex)
        place = self._places.get(key)
        if place is not None and place.want != want:
            raise BadRequestError(field="ticket", problem="this ticket was given for a different request")
        if place is None:
            if len(self._places) >= self.limit:
                raise DeviceBusyError(serials="asked for", reason="the queue is full")
            place = Waiting(key[1], want, time.monotonic(), next(self._orders))
            self._places[key] = place
            self._announce()
        self._asked[key] = time.monotonic()
        return place

    def leave(self, place: Waiting) -> None:
        """Give the place up: it was served, or its holder went away."""
        key = (place.want.holder, place.ticket)
        self._asked.pop(key, None)
        if self._places.pop(key, None) is not None:
            self._wake(place.order)
            self._announce()

    def hold(self, place: Waiting, by: int) -> None:
        """Note that a request is (1) or is no longer (-1) waiting at this place."""
        key = (place.want.holder, place.ticket)
        self._asked[key] = time.monotonic()
        count = self._held.get(key, 0) + by
        if count:
            self._held[key] = count
        else:
            self._held.pop(key, None)

    def holds(self, place: Waiting) -> int:
        """Return how many requests wait at this place now."""
        return self._held.get((place.want.holder, place.ticket), 0)

    def forget_unasked(self) -> None:
        """Drop places that nobody has asked for in a while."""
        now = time.monotonic()
        for key, asked in list(self._asked.items()):
            if key not in self._held and now - asked > FORGET_S:
                if key in self._places:
                    self.leave(self._places[key])
                else:
                    del self._asked[key]

    def stands(self, place: Waiting) -> bool:
        """Tell whether the place is still in the queue."""
        return (place.want.holder, place.ticket) in self._places

    def describe(self, place: Waiting) -> Place:
        """Tell how it stands with a place."""
        order = self.plan().order
        position = order.index(place.order) + 1 if place.order in order else 1
        before = {number: index for index, number in enumerate(order[: position - 1])}
        ahead = sorted((p for p in self._places.values() if p.order in before), key=lambda p: before[p.order])
        rivals = [other.want for other in ahead if self._compete(other.want, place.want)]
        why = why_waiting(place.want, len(rivals), self._offers, self.index.devices.values())
        return Place(place.ticket, position, why, self._estimate(place.want, rivals))

    def _compete(self, one: Want, other: Want) -> bool:
        return any(fits(device, one) and fits(device, other) for device in self.index.devices.values())

    def _estimate(self, want: Want, rivals: list[Want]) -> float | None:
        now = time.monotonic()
        ready = [0.0 for device in self._offers if fits(device, want)]
        for serial in self.index.lease_of:
            holding, device = self.index.holding_of(serial), self.index.devices.get(serial)
            if holding is not None and device is not None and fits(device, want):
                ready.append(max(0.0, holding.deadline - now))
        found = estimate(ready, [(rival.needed, rival.for_s or self.lease_s) for rival in rivals], want.needed)
        return None if found is None else round(found, 1)
