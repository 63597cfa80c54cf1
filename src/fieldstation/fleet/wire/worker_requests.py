"""What clients send to a worker: msgpack bytes (files raw) or JSON text (files as cp437 text), parsed and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from fieldstation.fleet.errors import BadRequestError

MAX_MESSAGE = 83_360_000  # documented: 104.2 * 8000 * 100


@dataclass(frozen=True, slots=True)
class Request:
    """One command for one or more devices."""

    serials: tuple[str, ...]
    event: str
    contents: Mapping[str, Any]


def parse(data: object) -> Request:
    """Read the argument of the Socket.IO event `request`; raises BadRequestError that names the field."""
    body = _unpack(data)
    if not isinstance(body, Mapping):
        raise BadRequestError(field="request", problem=f"it must hold an object, not {type(body).__name__}")
    serial = body.get("serial")
    serials = (serial,) if isinstance(serial, str) else tuple(serial) if isinstance(serial, list) else ()
    if not serials or not all(isinstance(one, str) and one for one in serials):
        raise BadRequestError(field="serial", problem="it must be a serial, or a list of serials")
    event, contents = body.get("event"), body.get("contents", {})
    if not isinstance(event, str) or not event:
        raise BadRequestError(field="event", problem="it must be the name of a command")
    if not isinstance(contents, Mapping):
        raise BadRequestError(field="contents", problem=f"it must be an object, not {type(contents).__name__}")
    return Request(tuple(dict.fromkeys(serials)), event, contents)


def _unpack(data: object) -> object:
    if isinstance(data, bytes | bytearray | str) and len(data) > MAX_MESSAGE:
        raise BadRequestError(field="request", problem=f"{len(data)} bytes are more than the {MAX_MESSAGE} allowed")
    try:
        if isinstance(data, bytes | bytearray):
            return msgpack.unpackb(data, raw=False, strict_map_key=False)
        if isinstance(data, str):
            return json.loads(data)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        form = "JSON" if isinstance(data, str) else "msgpack"
        raise BadRequestError(
            field="request", problem=f"this is not {form}: {error or type(error).__name__}"
        ) from error
    return data
