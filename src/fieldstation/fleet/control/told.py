"""What control tells clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fieldstation.fleet.model import Holder

META = "meta"  # the serial of events that are not about a device

FAILURE = "failure"
END = "reservation end"
ENDING_SOON = "reservation ending soon"
AVAILABLE = "devices_available"


@dataclass(frozen=True, slots=True)
class Told:
    """One `event` message about `serial`: to every socket of `to`, or to all clients (None).

    `text` is the documented JSON.
    """

    to: Holder | None
    serial: str
    text: str


@dataclass(frozen=True, slots=True)
class Leased:
    """`holder` has these devices (anew): what it was not told yet about an earlier lease of them is of no use now.

    Our client compares fences; a published one would take the end of the earlier lease for that of its lease of now.
    """

    holder: Holder
    serials: frozenset[str]


News = Told | Leased


def told(to: Holder | None, serial: str, *items: Mapping[str, Any]) -> Told:
    """Build a message of `items`, which the client handles in order."""
    return Told(to, serial, json.dumps({"serial": serial, "contents": items}))


def available(amount: int) -> Told:
    """Build the news of how many devices are free."""
    return told(None, META, {"event": AVAILABLE, "amount": amount})
