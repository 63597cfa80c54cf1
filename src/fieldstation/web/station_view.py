"""What the panel knows of one station: pure memory, fed with what the station publishes."""

from __future__ import annotations

import difflib
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

POINTS = 600  # kept per reading
SHOWN = 60  # points of a sparkline
LINES = 300
VALUES = 300  # readings per station
CONFIGS = 20


@dataclass(slots=True)
class Series:
    """One reading: the newest value, and the numbers before it."""

    at: float = 0.0
    last: float | int | str = ""
    points: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=POINTS))

    def add(self, at: float, value: float | str) -> None:
        """Take a value; one that arrives late does not replace a newer one."""
        if at >= self.at:
            self.at, self.last = at, value
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.points.append((at, float(value)))

    def spark(self) -> list[float]:
        """At most sixty points, evenly picked."""
        values = [value for _, value in sorted(self.points)]
        step = max(1, -(-len(values) // SHOWN))
        return values[::-step][::-1]


class StationView:
    """One station as its messages tell."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.heard_at = 0.0  # Unix seconds of the newest measurement, log or answer
        self.series: dict[str, Series] = {}
        self.logs: deque[dict[str, Any]] = deque(maxlen=LINES)
        self.answers: deque[dict[str, Any]] = deque(maxlen=100)
        self.config: Mapping[str, Any] | None = None  # in force, secrets masked
        self.past: dict[int, Mapping[str, Any]] = {}  # configs that were in force, by revision
        self.status: Mapping[str, Any] | None = None  # what it answered last, None when it did not

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take one message as it came off the wire; ValueError, KeyError or TypeError when it is none of ours."""
        at, body = float(entry["timestamp"]), entry["body"]
        variant = body["variant"]
        if variant == "data":
            for name, value in body["data"].items():
                if name in self.series or len(self.series) < VALUES:
                    self.series.setdefault(name, Series()).add(at, value)
        elif variant == "log":
            self.logs.append({"at": at, **{key: str(body[key]) for key in ("level", "subject", "body")}})
        elif variant == "config":
            self._answered(at, body)
        self.heard_at = max(self.heard_at, at)

    def _answered(self, at: float, body: Mapping[str, Any]) -> None:
        config = body["config"]
        general = config["general"]
        revision = int(general["config_revision"])
        self.answers.append(
            {
                "at": at,
                "status": str(body["status"]),
                "revision": revision,
                "version": str(general["software_version"]),
                "reason": str(body.get("reason") or ""),
            }
        )
        if body["status"] in ("startup", "accepted"):
            self.config = config
            self.past[revision] = config
            while len(self.past) > CONFIGS:
                del self.past[next(iter(self.past))]

    @property
    def revision(self) -> int:
        """The config in force, -1 when nothing is known of it."""
        return int(self.config["general"]["config_revision"]) if self.config is not None else -1

    @property
    def version(self) -> str:
        """The software that runs."""
        if self.status is not None and self.status.get("version"):
            return str(self.status["version"])
        return str(self.config["general"]["software_version"]) if self.config is not None else ""

    @property
    def queued(self) -> int | None:
        """Messages that wait for a server, over all uplinks; None when the station does not tell."""
        queues = (self.status or {}).get("queues")
        return sum(int(queue["depth"]) for queue in queues.values()) if isinstance(queues, Mapping) else None

    @property
    def state(self) -> str:
        """`ok`, `degraded` (it tells of problems) or `silent` (it does not answer)."""
        if self.status is None:
            return "silent"
        return "ok" if self.status.get("ok") else "degraded"

    def answer_to(self, revision: int, since: float) -> Mapping[str, Any] | None:
        """The verdict on a config of this revision that was pushed at `since` (Unix seconds), None before it is in."""
        verdicts = (a for a in self.answers if a["revision"] == revision and a["at"] >= since)
        return next((a for a in verdicts if a["status"] in ("accepted", "rejected")), None)


def text_of(config: Mapping[str, Any]) -> str:
    """Return a config as people edit it."""
    return json.dumps(config, indent=2, ensure_ascii=False)


def difference(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """Return the lines of a unified diff, without its head; empty when both say the same."""
    before = text_of(old).splitlines() if old is not None else []
    return list(difflib.unified_diff(before, text_of(new).splitlines(), lineterm="", n=2))[2:]


def read_config(text: str, revision: int) -> dict[str, Any]:
    """Return the config somebody typed, with its revision set; ValueError says what is wrong with it."""
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(f"This is no JSON: {error}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("general"), dict):
        raise ValueError("The config has no section `general`.")
    if not isinstance(config["general"].get("software_version"), str):
        raise ValueError("The field general.software_version is wrong: it must be a text such as 1.2.3.")
    return {**config, "general": {**config["general"], "config_revision": revision}}


def moment(at: float) -> str:
    """Return Unix seconds as ISO text, empty for never."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds") if at else ""
