from __future__ import annotations

import datetime
import time

import pytest

from fieldstation.station import grid


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(grid, "_last", None)
    yield
    monkeypatch.undo()
    time.tzset()


def at(monkeypatch, wall, steady):
    monkeypatch.setattr(grid.time, "time", lambda: wall)
    monkeypatch.setattr(grid.time, "monotonic", lambda: steady)


def test_the_documented_example():
    noon = datetime.datetime(2026, 1, 1, 12, 0, 3, tzinfo=datetime.UTC).timestamp()
    assert grid.seconds_to_grid(noon, 10) == pytest.approx(7)


def test_on_the_grid_the_wait_is_a_whole_interval(monkeypatch):
    at(monkeypatch, 1_700_000_000.0, 5.0)
    assert grid.get_time_to_next_datapoint(10) == 10


def test_a_timer_that_fires_early_does_not_repeat_the_point(monkeypatch):
    at(monkeypatch, 1_700_000_003.0, 100.0)
    assert grid.get_time_to_next_datapoint(10) == pytest.approx(7)
    at(monkeypatch, 1_700_000_009.99, 106.99)
    assert grid.get_time_to_next_datapoint(10) == pytest.approx(10.01)


def test_fault_clock_a_day_forward_or_back_never_waits_longer_than_one_interval(monkeypatch):
    for step in (86400.0, -86400.0, 3600.5, -0.7):
        at(monkeypatch, 1_700_000_003.0, 100.0)
        grid.get_time_to_next_datapoint(10)
        at(monkeypatch, 1_700_000_010.0 + step, 107.0)
        assert 0 < grid.get_time_to_next_datapoint(10) <= 10


def test_fault_clock_daylight_saving_keeps_the_grid_of_the_wall_clock(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    # 2026-03-29 03:00:07 CEST, seven seconds after the clocks went forward.
    now = datetime.datetime(2026, 3, 29, 1, 0, 7, tzinfo=datetime.UTC).timestamp()
    assert grid.seconds_to_grid(now, 3600) == pytest.approx(3593)


def test_many_points_are_neither_repeated_nor_skipped(monkeypatch):
    now, steady, points = 1_700_000_003.21, 50.0, []
    for _ in range(100):
        at(monkeypatch, now, steady)
        wait = grid.get_time_to_next_datapoint(10)
        now, steady = now + wait - 0.004, steady + wait - 0.004  # each wake a little early
        points.append(round(now / 10))
    assert points == list(range(points[0], points[0] + 100))
