"""Signs of life of a supervised process. Without a supervisor they go nowhere."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping

_line: socket.socket | None = None
_last_beat = 0.0
_EVERY_S = 0.2


def attach(line: socket.socket | None) -> None:
    """Send beats and reports to the supervisor at the other end of `line` from now on."""
    global _line
    _line = line


def beat(within_s: float | None = None) -> None:
    """Tell the supervisor that this procedure is alive; with `within_s`, that it will beat again within that time.

    Storing a message, logging and asking for the next datapoint beat by themselves. Call this in long measurements.
    """
    global _last_beat
    now = time.monotonic()
    if _line is None or (within_s is None and now - _last_beat < _EVERY_S):
        return
    _last_beat = now
    _send({"beat": within_s})


def report(status: Mapping[str, object]) -> None:
    """Tell the supervisor how this process is: what `status` and `health` show."""
    _send({"status": dict(status)})


def _send(entry: dict[str, object]) -> None:
    if _line is None:
        return
    try:
        _line.send(
            json.dumps({"pid": os.getpid(), **entry}).encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        )
    except OSError:
        return  # a supervisor that does not read is no reason to stop measuring
