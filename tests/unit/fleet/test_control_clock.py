from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fieldstation.fleet.control.clock import FleetClock

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Clocks:
    """A wall clock and a monotonic one that a test moves."""

    def __init__(self) -> None:
        self.wall = NOON
        self.running = 1000.0

    def go(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.running += seconds


def clock() -> tuple[FleetClock, Clocks]:
    clocks = Clocks()
    return FleetClock(lambda: clocks.wall, lambda: clocks.running), clocks


def test_a_step_is_noticed_once_and_going_on_is_none():
    fleet, clocks = clock()
    assert fleet.stepped_s() == 0
    clocks.go(100)
    assert fleet.stepped_s() == 0
    clocks.wall += timedelta(hours=1)
    assert fleet.stepped_s() == 3600
    assert fleet.stepped_s() == 0
    clocks.wall -= timedelta(hours=2)
    clocks.go(5)
    assert fleet.stepped_s() == -7200


def test_drift_is_no_step():
    fleet, clocks = clock()
    for _ in range(100):
        clocks.go(0.5)
        clocks.wall += timedelta(seconds=0.1)
        assert fleet.stepped_s() == 0


def test_once_the_database_tells_the_time_this_machines_clock_counts_no_more():
    fleet, clocks = clock()
    fleet.set(NOON - timedelta(hours=5))
    assert fleet.stepped_s() == 0
    clocks.go(10)
    clocks.wall += timedelta(days=1)
    assert fleet.now() == NOON - timedelta(hours=5) + timedelta(seconds=10)
    assert fleet.stepped_s() == 0
    fleet.set(NOON)
    assert fleet.stepped_s() == 5 * 3600 - 10
