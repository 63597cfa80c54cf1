from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fieldstation.site.demo.counts import Check, Flowing, acknowledged, archived, checks, produced
from fieldstation.site.demo.files import forget, free_port, write


def test_an_equation_needs_equal_sums_of_something() -> None:
    assert Check("x", ({"sent": 3}, {"here": 2, "there": 1})).ok
    assert str(Check("x", ({"sent": 3}, {"here": 2, "there": 1}))) == "sent 3 = here 2 + there 1"
    wrong = Check("x", ({"sent": 3}, {"results": 2}))
    assert not wrong.ok
    assert str(wrong) == "sent 3 ≠ results 2"
    assert not Check("x", ({"sent": 0}, {"results": 0})).ok  # nothing proves nothing


@pytest.mark.parametrize("prepare", [lambda path: None, lambda path: sqlite3.connect(path).close(), Path.touch])
def test_a_table_that_is_not_there_yet_holds_nothing(tmp_path: Path, prepare: object) -> None:
    path = tmp_path / "archive.sqlite3"
    prepare(path)
    assert archived(path) == {}
    (tmp_path / "data").mkdir()
    prepare(tmp_path / "data" / "active-message-queue.sqlite3")
    assert acknowledged(tmp_path) == (0, 0)


def test_a_reading_that_is_lost_on_the_way_is_seen(tmp_path: Path) -> None:
    layout = write(tmp_path, port=0)
    (layout.station / "data").mkdir()
    with sqlite3.connect(layout.station / "data" / "active-message-queue.sqlite3") as station:
        station.execute("CREATE TABLE message (seq INTEGER PRIMARY KEY, rank, body)")
        station.execute("CREATE TABLE delivery (rank, first, last)")
        station.executemany("INSERT INTO message (rank, body) VALUES (0, ?)", [['{"variant":"data"}']] * 3)
    layout.archive.parent.mkdir()
    with sqlite3.connect(layout.archive) as table:
        table.execute("CREATE TABLE message (source)")
        table.executemany("INSERT INTO message VALUES (?)", [["station"], ["station"], ["pulses"]])
    found = {check.name: check for check in checks(layout, Flowing({"station": 3}, 0, 0, 0), 1, 1)}
    assert str(found["station"]) == "stored 3 ≠ acknowledged 3 ≠ archived 2"
    assert found["evaluations"].ok
    assert not found["pipeline"].ok
    assert produced(layout.frames) == 0


def test_a_demonstration_begins_with_nothing_of_the_last_one(tmp_path: Path) -> None:
    layout = write(tmp_path, port=0)
    forget(tmp_path)
    assert not layout.station.exists()
    assert layout.site.exists()


def test_ports_are_given_once() -> None:
    taken: list[int] = []
    assert len({free_port(0, taken) for _ in range(5)}) == 5
    assert len(taken) == 5
