"""Who holds which device of this worker: leases, their fencing numbers, and whether a command may pass."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fieldstation.core.security import hash_token, new_token
from fieldstation.fleet.errors import BadRequestError, LeaseRefusedError

log = logging.getLogger(__name__)

LEASE_PREFIX = "fsl_"
LOCAL_LEASE_S = 3600.0  # of a reservation made on the worker itself
AFTERLIFE_S = 3600.0  # how long an ended lease may still fetch results that were not delivered


@dataclass(slots=True)
class Held:
    """A lease on this worker. `ends_at` is on the monotonic clock; `fences` holds the devices it still has.

    `ours` says whether its holder uses our client: None until a socket has presented the lease.
    """

    id: str
    token_hash: str
    client: str
    kind: str
    args: Mapping[str, Any]
    fences: dict[str, int]
    ends_at: float
    user: str = ""
    ours: bool | None = None
    ended_at: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)  # serial -> why the lease has it no longer

    @classmethod
    def parse(cls, body: Mapping[str, Any], now: float) -> Held:
        """Read the wire's lease object; raises BadRequestError that names the field."""
        for name, kinds in _FIELDS.items():
            if not isinstance(body.get(name), kinds) or isinstance(body.get(name), bool):
                problem = (
                    "it is missing" if name not in body else f"{type(body[name]).__name__} is not what belongs there"
                )
                raise BadRequestError(field=name, problem=problem)
        fences = body["fences"]
        if not all(isinstance(s, str) and isinstance(f, int) and not isinstance(f, bool) for s, f in fences.items()):
            raise BadRequestError(field="fences", problem="it must map serials to whole numbers")
        return cls(
            id=body["id"],
            token_hash=body["token_hash"],
            client=body["client"],
            kind=body["kind"],
            args=dict(body.get("args") or {}),
            fences=dict(fences),
            ends_at=now + body["for_s"],
            user=str(body.get("user", "")),
        )

    @classmethod
    def local(cls, serial: str, fence: int, kind: str, args: Mapping[str, Any], now: float) -> tuple[Held, str]:
        """Make a lease on the worker itself, without control; returns it and its token."""
        token = new_token(LEASE_PREFIX)
        identity = f"local-{secrets.token_hex(8)}"
        ends_at = now + LOCAL_LEASE_S
        return cls(identity, hash_token(token), "local", kind, dict(args), {serial: fence}, ends_at), token

    def body(self, now: float) -> dict[str, Any]:
        """Return the wire's lease object."""
        return {
            "id": self.id,
            "token_hash": self.token_hash,
            "user": self.user,
            "client": self.client,
            "kind": self.kind,
            "args": dict(self.args),
            "fences": dict(self.fences),
            "for_s": self.ends_at - now,
        }


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "token_hash": str,
    "client": str,
    "kind": str,
    "fences": dict,
    "for_s": (int, float),
}


class Holdings:
    """All leases of this worker, and the highest fencing number each device has ever seen."""

    def __init__(self, fences: Mapping[str, int] | None = None) -> None:
        self.fences: dict[str, int] = dict(fences or {})
        self._leases: dict[str, Held] = {}
        self._by_hash: dict[str, Held] = {}

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._leases.values()))

    def add(self, held: Held) -> None:
        """Take up a lease, or more devices for one that is known."""
        self._leases[held.id] = held
        self._by_hash[held.token_hash] = held
        for serial, fence in held.fences.items():
            self.fences[serial] = max(fence, self.fences.get(serial, 0))

    def get(self, lease_id: str) -> Held | None:
        """Return the lease, also an ended one."""
        return self._leases.get(lease_id)

    def by_hash(self, token_hash: str) -> Held | None:
        """Return the lease whose token has this hash, also an ended one."""
        return self._by_hash.get(token_hash)

    def active(self) -> list[Held]:
        """Return the leases that still hold something."""
        return [held for held in self._leases.values() if held.ended_at is None]

    def release(self, held: Held, serial: str, reason: str, now: float) -> None:
        """Take one device from a lease; the last one ends it."""
        if held.fences.pop(serial, None) is not None:
            held.reasons[serial] = reason
            about = {"fields": {"device": serial, "lease": held.id}}
            log.info("no longer held by %s: %s", held.client, reason, extra=about)
        if not held.fences and held.ended_at is None:
            held.ended_at = now

    def expired(self, now: float) -> list[Held]:
        """Return the leases whose time is over."""
        return [held for held in self.active() if held.ends_at <= now]

    def bury(self, now: float) -> list[Held]:
        """Forget leases that ended long ago, and return them."""
        old = [h for h in self._leases.values() if h.ended_at is not None and now - h.ended_at > AFTERLIFE_S]
        for held in old:
            del self._leases[held.id]
            self._by_hash.pop(held.token_hash, None)
        return old

    def check(self, presented: Iterable[str], serial: str, now: float) -> Held:
        """Return the lease among those `presented` (ids) that lets a command to `serial` pass; else LeaseRefusedError.

        The error's field `code` tells why: no_lease, ended or stale_fence.
        """
        ended = None
        for lease_id in presented:
            held = self._leases.get(lease_id)
            if held is None:
                continue
            if serial in held.reasons:
                ended = held.reasons[serial]
            if serial not in held.fences:
                continue
            if held.ends_at <= now:
                raise LeaseRefusedError(serial=serial, reason="the reservation is over", code="ended")
            if held.fences[serial] < self.fences.get(serial, 0):
                raise LeaseRefusedError(serial=serial, reason="somebody else has it by now", code="stale_fence")
            return held
        if ended is not None:
            raise LeaseRefusedError(serial=serial, reason=f"the reservation is over ({ended})", code="ended")
        raise LeaseRefusedError(serial=serial, reason="this connection holds no reservation on it", code="no_lease")
