"""What the fleet talks about: devices, workers, leases, and which moves between states are allowed."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


class DeviceState(enum.StrEnum):
    """What a device does. The values are the documented database statuses."""

    AVAILABLE = "available"  # tested, on the default firmware, offered to everybody
    RESERVED = "reserved"  # somebody holds a lease on it
    AWAIT_FLASH_DEFAULT = "await_flash_default"  # its lease ended; the worker has not begun to reset it
    FLASHING_DEFAULT = "flashing_default"  # the worker writes the default firmware
    TESTING = "testing"  # the worker checks that the default firmware answers
    BROKEN = "broken"  # it failed; the reason stands beside its health


# Which states may follow a state. A worker reports what it sees, so reality wins: `broken` and a fresh start with
# `flashing_default` may follow anything; the table is for what control itself decides.
MOVES: Mapping[DeviceState, frozenset[DeviceState]] = {
    DeviceState.AVAILABLE: frozenset({DeviceState.RESERVED}),
    DeviceState.RESERVED: frozenset({DeviceState.AWAIT_FLASH_DEFAULT}),
    DeviceState.AWAIT_FLASH_DEFAULT: frozenset({DeviceState.FLASHING_DEFAULT}),
    DeviceState.FLASHING_DEFAULT: frozenset({DeviceState.TESTING}),
    DeviceState.TESTING: frozenset({DeviceState.AVAILABLE}),
    DeviceState.BROKEN: frozenset({DeviceState.AWAIT_FLASH_DEFAULT}),
}


class Health(enum.StrEnum):
    """How a device is, apart from what it does."""

    OK = "ok"
    DEGRADED = "degraded"  # works after retries
    BROKEN = "broken"  # does not work; `reason` says why
    QUARANTINED = "quarantined"  # taken out by the recovery ladder, until an operator puts it back
    MAINTENANCE = "maintenance"  # taken out by an operator, until an operator puts it back


class WorkerState(enum.StrEnum):
    """How control sees a worker's line."""

    ONLINE = "online"
    UNREACHABLE = "unreachable"  # silent, but nothing proves it dead: leases live on, nothing new is offered
    DEAD = "dead"  # line gone and its port refuses: devices withdrawn, holders told


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease: the token's user, and the client name that program gave itself."""

    user: str
    client: str


@dataclass(frozen=True, slots=True)
class Device:
    """A device as its worker last reported it. `fence` is the highest fencing number ever leased on it."""

    serial: str
    worker: str
    driver: str
    state: DeviceState
    kinds: tuple[str, ...]
    fence: int = 0
    health: Health = Health.OK
    reason: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutOfService:
    """Why a device is offered to nobody, although it may be plugged in: `health` is QUARANTINED or MAINTENANCE."""

    health: Health
    reason: str
    user: str = ""  # who said so; empty for the ladder itself
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a device's history: what was done for it, or happened to it. `at` is UTC, by `worker`'s clock."""

    serial: str
    step: str
    detail: str = ""
    worker: str = ""
    user: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Worker:
    """A computer that hosts devices. `url` is where clients reach it; `boot` changes with each start of its process."""

    name: str
    url: str
    version: str
    kinds: tuple[str, ...]
    boot: str
    state: WorkerState = WorkerState.ONLINE
    draining: bool = False
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one holder to devices of one worker until `until` (UTC), all taken in one reserve call.

    `fences` maps serial to the fencing number this lease has on it: a command with a lower number than the worker has
    seen for that device is refused. Only the hash of the lease token is ever kept; the holder has the token itself.
    """

    id: str
    token_hash: str
    holder: Holder
    worker: str
    kind: str
    args: Mapping[str, Any]
    fences: Mapping[str, int]
    until: datetime
    had_socket: bool = False  # a lease whose holder never had a socket is not ended by the grace time
    ticket: str | None = None  # of the request that took it, so that its repetition finds it


@dataclass(frozen=True, slots=True)
class Row:
    """One reserved device as a client is told of it. `token` is in the clear here and nowhere else."""

    serial: str
    url: str
    token: str
    fence: int
    until: datetime
    for_s: float | None = None  # from when it was given to `until`: no clock that is set changes it
