"""Asking for devices, and standing in the control's queue until it is our turn."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.fleet.client.address import parse
from fieldstation.fleet.client.http import REQUEST_TIMEOUT_S, Control
from fieldstation.fleet.errors import FleetError, NotEnoughDevicesError
from fieldstation.fleet.model import Row

log = logging.getLogger(__name__)

HOLD_S = 15.0  # the longest that control holds one request of somebody who waits
GIVE_UP_S = 2.0  # for giving a place in the queue up; control drops one that nobody asks for by itself, but later


@dataclass(frozen=True, slots=True)
class Place:
    """Where we stand in the queue: position from 1, the server's reason and its word for programs (`too_few_exist`,
    `too_few_free`, `behind_others`); `estimate_s` when it has an idea."""

    position: int
    reason: str
    estimate_s: float | None = None
    code: str = ""


@dataclass(slots=True)
class Held:
    """One device we hold. `ends_in_s` is what was left of the lease when it was given."""

    row: Row
    address: str  # of its worker, without the lease
    ends_in_s: float
    kind: str = field(default="")


def parse_row(row: Mapping[str, Any], kind: str, now: datetime) -> Held:
    """Read one row of an answer to `/reserve`; a control of the original kind leaves lease, fence and end out.

    `now` is the server's clock, as `until` is.
    """
    url = row.get("url") or f"http://{row['ip']}:{row['serverport']}"
    address = parse(str(url))
    until_text = row.get("until")
    until = datetime.fromisoformat(str(until_text)) if until_text else None
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    ends_in_s = 3600.0 if until is None else (until - now).total_seconds()
    if isinstance(row.get("for_s"), int | float):
        ends_in_s = float(row["for_s"])
    token = str(row.get("lease") or address.token)
    lease = Row(str(row["serial"]), address.url, token, int(row.get("fence", 0)), until or now)
    return Held(lease, address.url, ends_in_s, kind)


async def ask_for(
    control: Control,
    path: str,
    arguments: Mapping[str, Any],
    *,
    wait_s: float = 0.0,
    on_wait: Callable[[Place], None] | None = None,
) -> list[Held]:
    """POST to `/reserve` or `/reserveserials`; with `wait_s`, keep a place in the queue for as long.

    Raises what the control refuses with, and NotEnoughDevicesError with the last reason when the time is over.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + wait_s
    # Made up here, so that a request whose answer was lost can be repeated without reserving twice.
    ticket, place = uuid.uuid4().hex, Place(0, "")
    queue: dict[str, Any] = {}
    while True:
        left_s = max(0.0, end - clock())
        if wait_s > 0:
            queue = {"wait_s": min(left_s, HOLD_S), "ticket": ticket, "leave": left_s <= HOLD_S}
        try:
            status, answer = await control.ask(
                "POST",
                path,
                {**arguments, **queue},
                timeout_s=REQUEST_TIMEOUT_S + HOLD_S,
                patience_s=max(left_s, control.patience_s),  # who waits for devices waits out a control's restart, too
                repeatable=wait_s > 0,
            )
        except asyncio.CancelledError:
            if wait_s > 0:
                await _give_up(control, path, {**arguments, "ticket": ticket})
            raise
        if status != 202:
            if not isinstance(answer, list):
                raise FleetError("The control server's answer to a reservation is no list of devices.")
            return [parse_row(row, str(arguments.get("kind", "")), control.now()) for row in answer]
        ticket = str(answer.get("ticket", ticket))
        now = Place(
            int(answer.get("position", 0)),
            str(answer.get("reason", "")),
            answer.get("estimate_s"),
            str(answer.get("code", "")),
        )
        if (now.position, now.reason) != (place.position, place.reason):
            log.info("waiting for devices, place %d in the queue: %s", now.position, now.reason)
            if on_wait is not None:
                on_wait(now)
        place = now
        if clock() >= end:
            raise NotEnoughDevicesError(
                f"No devices became free within {wait_s:g} s. {place.reason}".rstrip()
                + " Wait longer, or ask for fewer.",
                position=place.position,
                reason=place.reason,
            )


async def _give_up(control: Control, path: str, arguments: Mapping[str, Any]) -> None:
    """Leave the queue, so that nothing is kept for us; give back what was granted at the last moment."""
    try:
        async with asyncio.timeout(GIVE_UP_S):
            _, rows = await control.ask("POST", path, {**arguments, "wait_s": 0, "leave": True}, patience_s=0.0)
            if isinstance(rows, list) and rows:
                serials = [str(row["serial"]) for row in rows]
                await control.post("/end", {"name": arguments["name"], "serials": serials}, patience_s=0.0)
    except (FieldstationError, TimeoutError) as error:
        log.info("the place in the queue is kept a while: %s", error)
