"""Which evaluation goes to which device next: pure bookkeeping, no sockets, no clock of its own.

Each device has its own queue and its own window of unanswered evaluations, so a slow board never holds up a fast
one and no board runs dry while it has work left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Ask:
    """One evaluation on one device: position in the caller's list, and the id it has on the wire."""

    serial: str
    index: int
    wire_id: str


class BatchFactory(Protocol):
    """Says how many evaluations a device may have unanswered, and whether a round must end before the next."""

    def room(self, outstanding: int) -> int:
        """How many more a device with `outstanding` unanswered ones may be sent now."""


@dataclass(frozen=True, slots=True)
class BalancedBatchFactory:
    """Keep `target_batches` batches of `batch_size` waiting on each device while one is being worked on (default)."""

    batch_size: int = 5
    target_batches: int = 2

    def room(self, outstanding: int) -> int:
        """Refill to the window as soon as a place is free."""
        return max(0, max(1, self.batch_size * (self.target_batches + 1) - 1) - outstanding)


@dataclass(frozen=True, slots=True)
class PatientBatchFactory:
    """Send a device its next `batch_size` evaluations only when it has answered all earlier ones."""

    batch_size: int = 5

    def room(self, outstanding: int) -> int:
        """A whole round when nothing is outstanding, otherwise nothing."""
        return 0 if outstanding else max(1, self.batch_size)


@dataclass(frozen=True, slots=True)
class QuickBatchFactory:
    """Send without waiting for answers. The limit per device only keeps a long list from filling the memory."""

    limit: int = 800  # one message of the documented 83 MB holds as many

    def room(self, outstanding: int) -> int:
        """Everything up to the limit."""
        return max(0, self.limit - outstanding)


@dataclass(slots=True)
class _Desk:
    waiting: deque[Ask] = field(default_factory=deque)
    outstanding: dict[str, Ask] = field(default_factory=dict)  # by wire id, oldest first
    progress_at: float = 0.0  # when the oldest outstanding one began to be the oldest


class Window:
    """The state of one evaluate call. `now` is any monotonic clock in seconds."""

    def __init__(self, batches: BatchFactory) -> None:
        self.batches = batches
        self._desks: dict[str, _Desk] = {}

    def add(self, serial: str, index: int, wire_id: str) -> None:
        """Queue an evaluation for a device, behind what is queued already."""
        self._desks.setdefault(serial, _Desk()).waiting.append(Ask(serial, index, wire_id))

    def __len__(self) -> int:
        return sum(len(desk.waiting) + len(desk.outstanding) for desk in self._desks.values())

    def next(self, now: float) -> list[Ask]:
        """Return what to send now, and count it as outstanding. Devices take turns, so that none waits for a list."""
        picked: list[list[Ask]] = []
        for desk in self._desks.values():
            count = min(self.batches.room(len(desk.outstanding)), len(desk.waiting))
            if count and not desk.outstanding:
                desk.progress_at = now
            asks = [desk.waiting.popleft() for _ in range(count)]
            desk.outstanding |= {ask.wire_id: ask for ask in asks}
            picked.append(asks)
        return list(_turns(picked))

    def answered(self, serial: str, wire_id: str, now: float) -> Ask | None:
        """Take an answer; None when it was not expected (a repeat, or after the device was given up)."""
        desk = self._desks.get(serial)
        ask = desk.outstanding.pop(wire_id, None) if desk is not None else None
        if desk is not None and ask is not None:
            desk.progress_at = now
        return ask

    def outstanding(self, serials: Iterable[str]) -> list[Ask]:
        """Return what these devices were sent and have not answered, oldest first."""
        return [ask for s in serials if s in self._desks for ask in self._desks[s].outstanding.values()]

    def restart(self, serial: str, now: float) -> None:
        """Give a device its time again, after a reboot or a lost line."""
        if serial in self._desks:
            self._desks[serial].progress_at = now

    def give_up(self, serial: str) -> list[Ask]:
        """Forget a device; returns everything it did not answer."""
        desk = self._desks.pop(serial, None)
        return [] if desk is None else [*desk.outstanding.values(), *desk.waiting]

    def silent(self, now: float, limit_s: float) -> list[str]:
        """Return the devices that have something to answer and answered nothing for `limit_s`."""
        return [s for s, d in self._desks.items() if d.outstanding and now - d.progress_at >= limit_s]

    def next_check(self, limit_s: float) -> float | None:
        """Return the clock time at which a device could first be silent for `limit_s`, None when all is answered."""
        return min((d.progress_at + limit_s for d in self._desks.values() if d.outstanding), default=None)


def _turns(lists: Sequence[Sequence[Ask]]) -> Iterator[Ask]:
    for position in range(max((len(asks) for asks in lists), default=0)):
        for asks in lists:
            if position < len(asks):
                yield asks[position]


def by_message(asks: Iterable[Ask], worker_of: Mapping[str, str]) -> dict[tuple[str, int], list[Ask]]:
    """Group asks that may travel as one message: same worker, same evaluation. Order of first appearance is kept."""
    groups: dict[tuple[str, int], list[Ask]] = {}
    for ask in asks:
        groups.setdefault((worker_of[ask.serial], ask.index), []).append(ask)
    return groups
