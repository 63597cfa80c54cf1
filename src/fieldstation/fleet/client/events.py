"""What servers tell clients, parsed: the released list of items, and the document's single object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FAILURE = "failure"
INITIALIZED = "initialized"
RESERVATION_END = "reservation end"
ENDING_SOON = "reservation ending soon"
RESULTS = "results"
REFUSED = "refused"
META = "meta"  # the serial of events that are about no device


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to the device `serial` (or `meta`); `contents` holds the event's own fields."""

    serial: str
    event: str
    contents: Mapping[str, Any]

    def field(self, name: str) -> Any:
        """Return the field `name`, raising KeyError when it is absent; `serial` is always there."""
        return self.contents[name] if name in self.contents or name != "serial" else self.serial


def parse(message: Any) -> list[Event]:
    """Turn one Socket.IO `event` argument into events; items that are malformed are left out, the others kept.

    Accepted are JSON text or an object: `{"serial": S, "contents": [{"event": E, ...}, ...]}` as released, and
    `{"event": E, "contents": {...}}` as documented.
    """
    if isinstance(message, str | bytes):
        try:
            message = json.loads(message)
        except ValueError:
            return []
    if not isinstance(message, Mapping):
        return []
    serial, contents = message.get("serial", META), message.get("contents")
    if not isinstance(serial, str):
        return []
    if isinstance(contents, list):
        items = [item for item in contents if isinstance(item, Mapping)]
    elif isinstance(contents, Mapping) or "event" in message:
        items = [{**(contents if isinstance(contents, Mapping) else {}), "event": message.get("event")}]
    else:
        return []
    return [
        Event(serial, name, {key: value for key, value in item.items() if key != "event"})
        for item in items
        if isinstance(name := item.get("event"), str) and name
    ]
