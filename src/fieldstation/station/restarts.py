"""When a procedure that died starts again: soon, then later, and rarely when it dies all the time. Pure."""

from __future__ import annotations

from collections import deque

from fieldstation.core.retry import Backoff

STEADY_S = 60.0  # a process that lived so long starts the series anew
REST_S = 600.0


class RestartPolicy:
    """Delays of 0.1 s doubling to 30 s with jitter; a rest of ten minutes when the hour's budget is used up."""

    def __init__(self, per_hour: int = 60, backoff: Backoff | None = None) -> None:
        self._per_hour = per_hour
        self._backoff = backoff or Backoff(initial_s=0.1, ceiling_s=30.0)
        self._deaths: deque[float] = deque()
        self._failures = 0

    @property
    def count(self) -> int:
        """Deaths within the last hour, as of the last one."""
        return len(self._deaths)

    def died(self, now: float, uptime_s: float) -> float:
        """Return the seconds until the next start, of a process that died at `now` (monotonic)."""
        self._deaths.append(now)
        while self._deaths and now - self._deaths[0] > 3600:
            self._deaths.popleft()
        if uptime_s >= STEADY_S:
            self._failures = 0
        delay = self._backoff.delay(self._failures)
        self._failures += 1
        if len(self._deaths) >= self._per_hour:
            return max(delay, REST_S)
        return delay
