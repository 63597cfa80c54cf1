from __future__ import annotations

import subprocess
import time

import pytest

from fieldstation.station.logline import StormLimit, blocks_text, entry, exception_blocks


@pytest.fixture
def zone(monkeypatch):
    def set_zone(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def test_a_line_has_the_documented_form(zone):
    zone("Europe/Berlin")
    assert entry(1629640800.0, "origin", "INFO", "test message", []) == (
        "2021-08-22 16:00:00.000 UTC+2 - origin - INFO - test message"
    )


@pytest.mark.parametrize(
    ("name", "label"), [("UTC", "UTC+0"), ("Asia/Kolkata", "UTC+5.5"), ("America/St_Johns", "UTC-2.5")]
)
def test_time_and_label_agree_in_every_zone(zone, name, label):
    zone(name)
    assert f" {label} - " in entry(1629640800.0, "o", "INFO", "m", [])


def test_details_follow_in_ruled_blocks():
    assert blocks_text([("details", "test details")]) == (
        "--- details ----------------------------\ntest details\n----------------------------------------"
    )


def test_nothing_to_show_is_nothing():
    assert blocks_text([("details", None)]) == ""


def test_an_exception_has_its_details_before_its_traceback():
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as error:
        text = blocks_text(exception_blocks(error, "test details"))
    lines = text.splitlines()
    assert lines[0] == "--- exception details ------------------"
    assert lines[1] == "test details"
    assert lines[2] == "--- traceback --------------------------"
    assert lines[3] == "Traceback (most recent call last):"
    assert lines[-2:] == ["ZeroDivisionError: division by zero", "-" * 40]


def test_what_a_failed_command_said_is_among_the_details():
    error = subprocess.CalledProcessError(1, "x", output=b"out", stderr=b"err\xff")
    assert exception_blocks(error, None)[0][1] == "stderr: err\ufffd\nstdout: out"


def test_a_storm_is_counted_and_told_with_the_next_one_shown():
    limit = StormLimit(burst=2, window_s=60)
    assert [limit.admit("x", now) for now in (0, 1, 2, 3)] == [0, 0, None, None]
    assert limit.admit("y", 4) == 0
    assert limit.admit("x", 61) == 2


def test_what_was_held_back_can_be_told_at_the_end():
    limit = StormLimit(burst=1)
    for now in range(4):
        limit.admit("x", now)
    assert limit.flush() == {"x": 3}
    assert limit.flush() == {}


def test_a_storm_of_different_entries_takes_no_memory_without_end():
    limit = StormLimit(remembered=10)
    assert all(limit.admit(str(n), n / 1000) == 0 for n in range(1000))
    assert len(limit._seen) == 10
