"""Which configs were answered, and how. On disk, so that a config that comes again is not tried or answered again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fieldstation.core.files import write_file

REMEMBERED = 500


def digest(config: Any) -> str:
    """Return the fingerprint of a config as it arrived, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


class Answers:
    """The newest answer to each of the last five hundred configs."""

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

    def remember(self, fingerprint: str, revision: int, status: str, reason: str | None, message: str) -> str:
        """Note an answer and the message that tells it, durably; returns the message's id.

        The id follows from config and status, so that a message stored a second time after a power cut is the same one.
        """
        kept = [answer for answer in self._answers if answer["digest"] != fingerprint]
        entry = {
            "digest": fingerprint, "revision": revision, "status": status, "reason": reason, "time": time.time(),
            "message": message,
        }  # fmt: skip
        self._answers = [*kept, entry][-REMEMBERED:]
        self._write()
        return message_id(fingerprint, status)

    def told(self, fingerprint: str) -> None:
        """Note that the message is in the store."""
        for answer in self._answers:
            if answer["digest"] == fingerprint:
                answer.pop("message", None)
        self._write()

    def untold(self) -> Iterator[tuple[str, str, str]]:
        """Yield (fingerprint, message id, message) of the answers whose message may not be in the store."""
        for answer in list(self._answers):
            if "message" in answer:
                yield answer["digest"], message_id(answer["digest"], answer["status"]), answer["message"]

    def last(self) -> dict[str, Any] | None:
        """Return the newest answer."""
        return {k: v for k, v in self._answers[-1].items() if k != "message"} if self._answers else None

    def _write(self) -> None:
        write_file(self._path, json.dumps(self._answers, indent=1))


def message_id(fingerprint: str, status: str) -> str:
    """Return the id under which an answer is stored."""
    return f"answer-{fingerprint[:32]}-{status}"
