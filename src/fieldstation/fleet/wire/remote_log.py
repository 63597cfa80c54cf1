"""Log records that workers and other programs send to control."""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger("fieldstation.fleet.remote")

MAX_TEXT = 4000


def write_remote(name: str, peer: str, entries: Iterable[object]) -> None:
    """Log `[level, text]` entries under the sender's name; anything else is skipped. Line ends cannot forge lines."""
    for entry in entries:
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            continue
        level, text = entry
        if isinstance(level, int) and not isinstance(level, bool) and isinstance(text, str):
            clean = text[:MAX_TEXT].rstrip("\n").replace("\r", "\\r").replace("\n", "\\n")
            log.log(min(max(level, 0), 50), "[%s@%s] %s", name, peer, clean)
