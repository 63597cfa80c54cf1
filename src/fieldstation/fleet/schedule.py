"""Who gets which devices and when: pure functions of what is free, who waits, and what time it is."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fieldstation.fleet.model import Device, Holder

# So many seconds of waiting weigh as much as one step of priority: nobody waits for ever behind urgent newcomers.
AGE_PER_PRIORITY_S = 30.0


@dataclass(frozen=True, slots=True)
class Want:
    """What somebody asks for: `amount` devices of `kind`, or exactly `serials` when that is not empty. `for_s` is the
    length of the lease; None: as long as is usual."""

    holder: Holder
    kind: str
    amount: int
    serials: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    for_s: float | None = None

    @property
    def needed(self) -> int:
        """How many devices that is."""
        return len(self.serials) or self.amount


@dataclass(frozen=True, slots=True)
class Waiting:
    """A want that stands in the queue since `since` (monotonic seconds); `order` counts places and breaks ties."""

    ticket: str
    want: Want
    since: float
    order: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the queue comes to: serials for each place (by its `order`) that can be served now, devices that nobody
    else may take, and the places in their order."""

    grants: Mapping[int, tuple[str, ...]]
    kept: frozenset[str]
    order: tuple[int, ...]


def fits(device: Device, want: Want) -> bool:
    """Tell whether the device is of the kind, labels and serials that are wanted (free or not)."""
    if want.serials and device.serial not in want.serials:
        return False
    return want.kind in device.kinds and all(device.labels.get(key) == value for key, value in want.labels.items())


def choose(want: Want, free: Iterable[Device], busy: Mapping[str, int]) -> tuple[str, ...] | None:
    """Pick devices for `want`, all or none (None). `busy` counts the reserved devices of each worker.

    Devices come from the least busy worker first, so that one slow computer does not carry a whole experiment; on a
    worker those that were leased least often come first.
    """
    fitting = [device for device in free if fits(device, want)]
    needed = want.needed
    if len(fitting) < needed:
        return None
    waiting: dict[str, list[Device]] = {}
    for device in sorted(fitting, key=lambda d: (d.fence, d.serial), reverse=True):
        waiting.setdefault(device.worker, []).append(device)
    taken: Counter[str] = Counter()
    chosen = []
    for _ in range(needed):
        worker = min((w for w in waiting if waiting[w]), key=lambda w: (busy.get(w, 0) + taken[w], w))
        chosen.append(waiting[worker].pop().serial)
        taken[worker] += 1
    if want.serials:  # answered in the order in which they were named
        chosen = [serial for serial in want.serials if serial in chosen]
    return tuple(chosen)


def rank(waiting: Waiting, now: float) -> tuple[float, int]:
    """Return the sort key of a place in the queue: priority, raised by age, then who came first."""
    return -(waiting.want.priority + (now - waiting.since) / AGE_PER_PRIORITY_S), waiting.order


def plan(queue: Collection[Waiting], free: Sequence[Device], busy: Mapping[str, int], now: float) -> Plan:
    """Go through the queue in order. Who cannot be served yet keeps the free devices that fit, so that a small
    request never starves a big one; who wants other devices passes."""
    left = {device.serial: device for device in free}
    load = Counter(busy)
    grants: dict[int, tuple[str, ...]] = {}
    kept: set[str] = set()
    ordered = sorted(queue, key=lambda w: rank(w, now))
    for place in ordered:
        if not left:
            break  # nothing is free any more, for nobody
        chosen = choose(place.want, left.values(), load)
        if chosen is not None:
            grants[place.order] = chosen
            load.update(left[serial].worker for serial in chosen)
        taken = chosen if chosen is not None else [s for s, device in left.items() if fits(device, place.want)]
        for serial in taken:
            del left[serial]
            kept.add(serial)
    return Plan(grants, frozenset(kept), tuple(place.order for place in ordered))


class Lack(enum.StrEnum):
    """Why a request is not served yet, for programs."""

    TOO_FEW_EXIST = "too_few_exist"  # waiting does not help: more must be plugged in, or mended
    TOO_FEW_FREE = "too_few_free"  # it is next; others hold what it needs
    BEHIND_OTHERS = "behind_others"  # requests before it want the same devices


@dataclass(frozen=True, slots=True)
class Why:
    """Why a request waits: `code` with its numbers of devices, and the same as a sentence. `ahead` counts requests."""

    code: Lack
    text: str
    wanted: int
    free: int
    exist: int
    ahead: int


def why_waiting(want: Want, ahead: int, free: Collection[Device], everything: Collection[Device]) -> Why:
    """Say why `want` is not served yet."""
    exist = sum(fits(device, want) for device in everything)
    now = sum(fits(device, want) for device in free)
    what = "the devices asked for" if want.serials else f"devices of kind {want.kind}"
    if want.labels:
        what += " with " + ", ".join(f"{key}={value}" for key, value in sorted(want.labels.items()))
    if exist < want.needed:
        code = Lack.TOO_FEW_EXIST
        text = f"The fleet has {exist} of {want.needed} {what}; more must be plugged in."
    else:
        code = Lack.BEHIND_OTHERS if ahead else Lack.TOO_FEW_FREE
        queue = "" if not ahead else f"; {ahead} request{'s are' if ahead > 1 else ' is'} ahead of yours"
        text = f"{now} of {want.needed} {what} {'is' if now == 1 else 'are'} free{queue}."
    return Why(code, text, want.needed, now, exist, ahead)


def estimate(ready_in_s: Iterable[float], ahead: Iterable[tuple[int, float]], needed: int) -> float | None:
    """Return in how many seconds `needed` devices are ours at the latest, if nobody extends a lease; None: never.

    `ready_in_s` tells for each fitting device when it is free (0: now); `ahead` how many devices each request before
    ours takes, and for how long.
    """
    ready = sorted(ready_in_s)
    for count, for_s in ahead:
        if count <= len(ready):  # otherwise it waits for devices that do not exist, and we pass it
            start = ready[count - 1]
            ready = sorted([*ready[count:], *[start + for_s] * count])
    return ready[needed - 1] if 0 < needed <= len(ready) else None


class Due(enum.Enum):
    """What the clock says of a lease."""

    NOTHING = enum.auto()
    WARN = enum.auto()  # under `ending_soon_s` left and not warned for a while
    EXPIRED = enum.auto()  # its time is over
    ABANDONED = enum.auto()  # its holder had a socket and has had none for the grace time


@dataclass(frozen=True, slots=True)
class Terms:
    """The lengths that lifetimes are judged by, in seconds (see `ControlConfig`)."""

    lease_s: float
    ending_soon_s: float
    ending_soon_every_s: float
    grace_s: float


def due(now: float, deadline: float, idle_since: float | None, warned_at: float | None, terms: Terms) -> Due:
    """Judge a lease. All times are monotonic; `idle_since` is None while a socket is open, or when none ever was."""
    if now >= deadline:
        return Due.EXPIRED
    if idle_since is not None and now - idle_since >= terms.grace_s:
        return Due.ABANDONED
    soon = deadline - now < terms.ending_soon_s
    if soon and (warned_at is None or now - warned_at >= terms.ending_soon_every_s):
        return Due.WARN
    return Due.NOTHING


def left_after_restart(left_s: float, terms: Terms) -> float:
    """How long a lease found in the database still lasts: its holder could not extend it while control was away, so
    at least the grace time; and a wall clock that was set back lengthens nothing beyond a whole lease."""
    return min(max(left_s, terms.grace_s), max(terms.lease_s, terms.grace_s))
