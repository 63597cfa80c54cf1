"""Sampling on a grid of local time, robust against clock steps."""

from __future__ import annotations

import datetime
import time

from fieldstation.station.heartbeat import beat

# The last answer of this process: (interval, wall clock when the point is due, monotonic when it is due).
_last: tuple[int, float, float] | None = None
_STEP_S = 0.5  # two clocks that drift apart by more than this between calls: somebody set one of them


def get_time_to_next_datapoint(seconds_between_datapoints: int) -> float:
    """Return the seconds, in (0, interval], until the next multiple of the interval counted from local midnight.

    Waking a little early (timers may) does not repeat a point, and after the clock was set the grid is entered anew:
    the wait is never longer than one interval.
    """
    global _last
    beat()
    now, steady = time.time(), time.monotonic()
    wait = seconds_to_grid(now, seconds_between_datapoints)
    if _last is not None and _last[0] == seconds_between_datapoints:
        _, due, due_steady = _last
        stepped = abs((now - due) - (steady - due_steady)) > _STEP_S
        # Still before the point that was just waited for: a timer fired early, so the caller has that point now.
        if not stepped and 0 < due - now < min(0.05, seconds_between_datapoints / 2) and steady >= due_steady - 0.05:
            wait += seconds_between_datapoints
    wait = min(wait, seconds_between_datapoints + 0.05)
    _last = (seconds_between_datapoints, now + wait, steady + wait)
    return wait


def seconds_to_grid(now: float, interval: float) -> float:
    """Return the wait from Unix time `now` to the next multiple of `interval` since the last local midnight."""
    local = datetime.datetime.fromtimestamp(now).astimezone()
    # By the wall clock of that day, so that 12:00:10 is on the ten-second grid also after a daylight-saving change.
    since_midnight = local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6
    return interval - since_midnight % interval
