"""The fleet's wall clock. Leases run on the monotonic clock; this one only tells people, and the next leader, when they
end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

STEP_S = 2.0  # less than that is drift


class FleetClock:
    """The database's clock where two controls share one (`set` at each beat), otherwise this machine's."""

    def __init__(
        self,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self._set: tuple[datetime, float] | None = None
        self._last: tuple[datetime, float] | None = None

    def set(self, now: datetime) -> None:
        """The database tells the time."""
        self._set = now, self.monotonic()

    def now(self) -> datetime:
        """Return the fleet's time, UTC."""
        if self._set is None:
            return self.wall()
        told, at = self._set
        return told + timedelta(seconds=self.monotonic() - at)

    def stepped_s(self) -> float:
        """Return by how much the clock was set since the last call; 0 when it only went on."""
        now, at = self.now(), self.monotonic()
        before, self._last = self._last, (now, at)
        if before is None:
            return 0.0
        step = (now - before[0]).total_seconds() - (at - before[1])
        return step if abs(step) > STEP_S else 0.0
