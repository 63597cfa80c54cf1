"""The recovery ladder: what is tried next for a device that failed. Pure; `states.recovery` carries it out.

A device climbs from what costs least to what costs most. Each rung has a budget for a length of time, so that a board
that always recovers, and always fails again, ends in quarantine as well.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass


class Rung(enum.StrEnum):
    """One way to recover; the value is the word in the device's history."""

    RETRY = "retry"  # look again, change nothing
    REFLASH = "reflash"  # write the default firmware
    POWER_CYCLE = "power cycle"  # have its hub take the power away for a moment
    QUARANTINE = "quarantined"  # take it out until an operator puts it back


@dataclass(frozen=True, slots=True)
class Budgets:
    """How often each rung may be used within `window_s` seconds."""

    retries: int = 2
    reflashes: int = 3
    power_cycles: int = 2
    window_s: float = 21_600.0

    def of(self, rung: Rung) -> int:
        """Return the budget of a rung that has one."""
        return {Rung.RETRY: self.retries, Rung.REFLASH: self.reflashes, Rung.POWER_CYCLE: self.power_cycles}[rung]


@dataclass(frozen=True, slots=True)
class Tried:
    """A rung that was used at `at`, in monotonic seconds."""

    rung: Rung
    at: float


CLIMB = (Rung.RETRY, Rung.REFLASH, Rung.POWER_CYCLE)
LONGEST = 20  # times the first pause


def next_rung(tried: Iterable[Tried], budgets: Budgets, now: float, possible: Collection[Rung]) -> Rung:
    """Return the lowest possible rung with budget left, QUARANTINE when there is none."""
    recent = [one.rung for one in tried if now - one.at < budgets.window_s]
    for rung in CLIMB:
        if rung in possible and recent.count(rung) < budgets.of(rung):
            return rung
    return Rung.QUARANTINE


def pause_s(first_s: float, failures: int) -> float:
    """Return how long to wait before the next rung: twice as long after each failure in a row, up to a limit."""
    return min(first_s * 2.0 ** min(failures - 1, 10), LONGEST * first_s)
