"""What control counts since its start, for /metrics."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

# Why leases end, in a few words that a chart can have as a label.
CAUSES = {
    "its time was over": "expired",
    "its holder has gone": "abandoned",
    "ended": "ended",
    "cleared": "cleared",
}


@dataclass(slots=True)
class Counts:
    """Numbers that only grow, and when counting began (monotonic seconds)."""

    since: float = field(default_factory=time.monotonic)
    reserved: int = 0  # devices
    ended: Counter[str] = field(default_factory=Counter)  # devices, by cause
    refused: Counter[str] = field(default_factory=Counter)  # requests, by the error's code
    grants: int = 0  # requests that were served from the queue
    waited_s: float = 0.0  # and how long they stood there, together
    commits: int = 0
    commit_s: float = 0.0
    commit_failures: int = 0
    audit_lost: int = 0
    dropped_events: int = 0
    slow_clients: int = 0

    def end(self, devices: int, reason: str) -> None:
        """Count devices whose lease ended."""
        self.ended[CAUSES.get(reason, "failed")] += devices
