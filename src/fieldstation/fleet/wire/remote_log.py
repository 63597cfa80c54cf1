"""Log records that workers and other programs send to control."""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger("fieldstation.fleet.remote")

MAX_TEXT = 4000
FIELDS = ("device", "lease")  # what a worker's line may be about


def write_remote(name: str, peer: str, entries: Iterable[object]) -> None:
    """Log `[level, text]` and `[level, text, fields]` under the sender's name; anything else is skipped. Line ends
    cannot forge lines."""
    for entry in entries:
        if not isinstance(entry, list | tuple) or len(entry) not in (2, 3):
            continue
        level, text, *more = entry
        fields = more[0] if more else {}
        if (
            isinstance(level, int)
            and not isinstance(level, bool)
            and isinstance(text, str)
            and isinstance(fields, dict)
        ):
            known = {key: _clean(str(fields[key])) for key in FIELDS if key in fields}
            log.log(min(max(level, 0), 50), "[%s@%s] %s", name, peer, _clean(text), extra={"fields": known})


def _clean(text: str) -> str:
    return text[:MAX_TEXT].rstrip("\n").replace("\r", "\\r").replace("\n", "\\n")
