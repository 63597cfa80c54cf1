"""Which configs were answered, and how. On disk, so that a config that comes again is not tried or answered again."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from fieldstation.station.durable import write_file

REMEMBERED = 500


def digest(config: Any) -> str:
    """Return the fingerprint of a config as it arrived, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


class Answers:
    """The last five hundred answers, oldest first."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "answers.json"
        try:
            self._answers: list[dict[str, Any]] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            self._answers = []

    def status_of(self, fingerprint: str) -> str | None:
        """Return `received`, `accepted` or `rejected`, or None for a config never seen."""
        for answer in reversed(self._answers):
            if answer["digest"] == fingerprint:
                return str(answer["status"])
        return None

    def remember(self, fingerprint: str, revision: int, status: str, reason: str | None) -> None:
        """Note an answer before it is sent, durably."""
        kept = [answer for answer in self._answers if answer["digest"] != fingerprint]
        entry = {"digest": fingerprint, "revision": revision, "status": status, "reason": reason, "time": time.time()}
        self._answers = [*kept, entry][-REMEMBERED:]
        write_file(self._path, json.dumps(self._answers, indent=1))

    def last(self) -> dict[str, Any] | None:
        """Return the newest answer."""
        return self._answers[-1] if self._answers else None
