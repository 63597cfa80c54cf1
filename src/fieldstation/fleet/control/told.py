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
    """One `event` message: to every socket of `to`, or to all clients (None). `text` is the documented JSON."""

    to: Holder | None
    text: str


def told(to: Holder | None, serial: str, *items: Mapping[str, Any]) -> Told:
    """Build a message of `items`, which the client handles in order."""
    return Told(to, json.dumps({"serial": serial, "contents": items}))


def available(amount: int) -> Told:
    """Build the news of how many devices are free."""
    return told(None, META, {"event": AVAILABLE, "amount": amount})
