from __future__ import annotations

import datetime
import json
import random
import sqlite3
import time
from importlib import resources

import pytest

from fieldstation.core.store import connect, migrate, numbered
from fieldstation.station import rescue
from fieldstation.station.store import NEXT_ROWS, NewRow, Reader, Store, open_for_writing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def connection(path):
    opened = open_for_writing(path)
    opened.execute("PRAGMA synchronous=OFF")  # no test here cuts the power
    yield opened
    opened.close()


def row(number, rank=0, at=None):
    return NewRow(f"id-{number}", time.time() if at is None else at, rank, f'{{"n":{number}}}')


def seqs(rows):
    return [r.seq for r in rows]


def test_readings_come_before_logs_and_the_oldest_first(path, connection):
    store = Store(connection)
    store.add([row(1, rank=1), row(2), row(3, rank=1), row(4)])
    assert [r.id for r in Reader(path).next_rows(10)] == ["id-2", "id-4", "id-1", "id-3"]


def test_an_id_that_is_stored_is_not_stored_again(path, connection):
    store = Store(connection)
    assert store.add([row(1)]) == 1
    assert store.add([row(1), row(2)]) == 1
    assert Reader(path).depth() == 2


def test_an_acknowledgement_deletes_the_delivery_and_keeps_the_message(path, connection):
    store = Store(connection)
    store.add([row(1), row(2)])
    store.done("backend", [(0, 1)])
    assert seqs(Reader(path).next_rows(10)) == [2]
    assert connection.execute("SELECT count(*) FROM message").fetchone()[0] == 2


def test_two_uplinks_have_cursors_of_their_own(path, connection):
    store = Store(connection)
    store.set_uplinks(["backend", "panel"])
    store.add([row(1), row(2)])
    store.done("backend", [(0, 1), (0, 2)])
    assert Reader(path, "backend").depth() == 0
    assert Reader(path, "panel").depth() == 2


def test_an_uplink_that_is_switched_off_is_owed_nothing_new_and_keeps_what_it_was_owed(path, connection):
    store = Store(connection)
    store.add([row(1)])
    store.set_uplinks(["panel"])
    store.add([row(2)])
    assert Reader(path, "backend").depth() == 1
    assert Reader(path, "panel").depth() == 1


def test_a_message_that_is_set_aside_blocks_nothing_and_can_be_owed_again(path, connection):
    store = Store(connection)
    store.add([row(1), row(2)])
    store.park("backend", 0, 1, "too odd")
    reader = Reader(path)
    assert seqs(reader.next_rows(10)) == [2]
    assert reader.parked() == [(1, "too odd")]
    assert store.unpark("backend") == 1
    assert seqs(reader.next_rows(10)) == [1, 2]


def test_a_cursor_goes_on_behind_what_was_taken(path, connection):
    Store(connection).add([row(n, rank=n % 2) for n in range(1, 9)])
    reader = Reader(path)
    first = reader.next_rows(3)
    assert seqs(first) == [2, 4, 6]
    assert seqs(reader.next_rows(3, (6, 0))) == [8, 1, 3]


def test_retention_drops_only_what_was_delivered_and_never_the_newest_row(path, connection):
    store = Store(connection)
    store.add([row(n) for n in range(1, 6)])
    store.done("backend", [(0, 1), (0, 3), (0, 5)])
    assert store.drop_delivered(10) == 2
    assert [r[0] for r in connection.execute("SELECT seq FROM message ORDER BY seq")] == [2, 4, 5]
    store.reload()
    store.add([row(9)])
    assert connection.execute("SELECT max(seq) FROM message").fetchone()[0] == 6


def test_what_no_uplink_was_ever_owed_is_the_only_copy_and_is_never_dropped(connection):
    store = Store(connection)
    store.set_uplinks([])
    store.add([row(1), row(2)])
    assert store.drop_delivered(10) == 0


def test_retention_goes_by_age(connection):
    store = Store(connection)
    store.add([row(1, at=100.0), row(2, at=300.0), row(3, at=400.0)])
    store.done("backend", [(0, 1), (0, 2)])
    assert store.drop_delivered(10, before=200.0) == 1


def test_fault_clock_a_jump_back_does_not_put_new_rows_before_old_ones(path, connection):
    Store(connection).add([row(1, at=2000.0), row(2, at=1000.0), row(3, at=3000.0)])
    assert seqs(Reader(path).next_rows(10)) == [1, 2, 3]


def test_fault_queue_cost_the_next_rows_are_found_by_an_index_and_never_sorted(path, connection):
    Store(connection).add([row(n) for n in range(1, 50)])
    plan = " ".join(
        r["detail"]
        for r in connection.execute(
            "EXPLAIN QUERY PLAN " + NEXT_ROWS, {"uplink": 1, "rank": 0, "after": 3, "count": 50}
        )
    )
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


def test_what_is_not_stored_yet_cannot_be_forgotten_in_advance(path, connection):
    store = Store(connection)
    store.add([row(1)])
    store.done_by_seq("backend", [-1, 0, 2, 3, 1000])
    store.add([row(2), row(3, rank=1)])
    assert seqs(Reader(path).next_rows(10)) == [1, 2, 3]
    store.done("backend", [(0, 1), (0, 2), (1, 3)])
    assert Reader(path).depth() == 0
    assert Reader(path).next_rows(10) == []


OPEN = 1 << 62


def owed_ranges(connection):
    return [tuple(r) for r in connection.execute("SELECT uplink, rank, first, last FROM delivery ORDER BY 1, 2, 3")]


def test_what_is_only_added_falls_into_one_range_without_an_end(connection):
    store = Store(connection)
    for n in range(1, 6):
        store.add([row(n)])
    assert owed_ranges(connection) == [(1, 0, 1, OPEN)]
    store.done("backend", [(0, 5), (0, 2), (0, 3), (1, 1)])
    assert owed_ranges(connection) == [(1, 0, 1, 1), (1, 0, 4, 4), (1, 0, 6, OPEN)]
    store.add([row(6, rank=1), row(7)])
    assert owed_ranges(connection) == [(1, 0, 1, 1), (1, 0, 4, 4), (1, 0, 7, OPEN), (1, 1, 6, 6)]
    store.reload()
    store.add([row(8)])
    store.set_uplinks(["panel"])
    store.add([row(9)])
    assert owed_ranges(connection) == [(1, 0, 1, 1), (1, 0, 4, 4), (1, 0, 7, 8), (1, 1, 6, 6), (2, 0, 9, OPEN)]
    assert store.drop_uplink("panel") == 1
    store.add([row(10)])
    assert owed_ranges(connection)[-1] == (2, 0, 10, OPEN)


@pytest.mark.parametrize("seed", range(3))
def test_ranges_say_what_a_set_of_numbers_would_say(path, connection, seed):
    chance, store, reader = random.Random(seed), Store(connection), Reader(path)
    owed, parked, last = {0: set(), 1: set()}, set(), 0
    for _ in range(150):
        rows = [row(last + n, rank=int(chance.random() < 0.3)) for n in range(1, chance.randint(0, 6) + 1)]
        store.add(rows)
        for number, new in enumerate(rows, last + 1):
            owed[new.rank].add(number)
        last += len(rows)
        everything = [(rank, seq) for rank in (0, 1) for seq in sorted(owed[rank])]
        keys = chance.sample(everything, min(len(everything), chance.randint(0, 5)))
        if chance.random() < 0.5 and keys:
            rank, seq = keys.pop()
            store.park("backend", rank, seq, "odd")
            owed[rank].discard(seq)
            parked.add((rank, seq))
        if chance.random() < 0.5:
            store.done("backend", keys)
        else:
            store.done_by_seq("backend", [seq for _, seq in keys])
        for rank, seq in keys:
            owed[rank].discard(seq)
        if chance.random() < 0.1:
            assert store.unpark("backend") == len(parked)
            for rank, seq in parked:
                owed[rank].add(seq)
            parked.clear()
        if chance.random() < 0.1:
            store.reload()
        after = (chance.randint(0, last), chance.randint(0, last))
        expected = [seq for rank in (0, 1) for seq in sorted(owed[rank]) if seq > after[rank]]
        assert seqs(reader.next_rows(7, after)) == expected[:7]
        assert reader.depth() == len(owed[0]) + len(owed[1])
    dropped = store.drop_delivered(last)
    left = {r[0] for r in connection.execute("SELECT seq FROM message")}
    assert left == owed[0] | owed[1] | {last}
    assert dropped == last - len(left)


def test_a_store_with_a_row_for_each_delivery_is_brought_up_to_date_with_all_it_owes(path):
    first = [step for step in numbered(resources.files("fieldstation.station") / "sql") if step[0] == 1]
    connection = connect(path)
    migrate(connection, first, path)
    connection.execute("INSERT INTO uplink (name, active) VALUES ('panel', 1)")
    for n, rank in enumerate([0, 0, 1, 0, 0, 1], 1):
        connection.execute("INSERT INTO message VALUES (?, ?, 1.0, ?, 1, '{}', NULL)", (n, f"id-{n}", rank))
    owed = [(1, 0, 1), (1, 0, 2), (1, 0, 5), (1, 1, 3), (2, 0, 5), (2, 1, 6)]
    connection.executemany("INSERT INTO delivery VALUES (?, ?, ?)", owed)
    connection.close()
    opened = open_for_writing(path)
    assert owed_ranges(opened) == [(1, 0, 1, 2), (1, 0, 5, 5), (1, 1, 3, 3), (2, 0, 5, 5), (2, 1, 6, 6)]
    Store(opened).add([row(7)])
    opened.close()
    assert seqs(Reader(path).next_rows(10)) == [1, 2, 5, 7, 3]
    assert seqs(Reader(path, "panel").next_rows(10)) == [5, 7, 6]
    assert len(list(Reader(path).on_day(datetime.date(1970, 1, 1)))) == 6
    assert Reader(path).stored_since(2.0) == 1


def test_fault_clock_a_day_is_found_whole_however_often_the_clock_jumped(path, connection):
    store, today = Store(connection), 20_000 * 86400.0
    for n, at in enumerate([0, 1, 86_400, 86_401, -1, 5, 86_399.9, 86_400, 3], 1):
        store.add([row(n, at=today + at)])
        if n == 5:
            store.reload()
    reader, day = Reader(path), datetime.date(1970, 1, 1) + datetime.timedelta(days=20_000)
    days = [day + datetime.timedelta(days=offset) for offset in (-1, 0, 1)]
    assert reader.days() == days
    assert [[json.loads(body)["n"] for _, body in reader.on_day(each)] for each in days] == [
        [5], [1, 2, 6, 7, 9], [3, 4, 8]]  # fmt: skip
    store.done("backend", [(0, n) for n in range(1, 10)])
    assert store.drop_delivered(2) == 2
    assert reader.days() == days
    assert store.drop_delivered(3) == 3
    assert reader.days() == days[1:]
    assert store.drop_delivered(10) == 3
    assert reader.days() == [day]
    assert connection.execute("SELECT count(*) FROM day").fetchone()[0] == 1


def test_retention_looks_at_no_later_day(path, connection):
    store = Store(connection)
    store.add([row(n, at=86400.0 * n) for n in range(1, 6)])
    store.done("backend", [(0, n) for n in range(1, 6)])
    assert store.drop_delivered(10, before=86400.0 * 3 + 1) == 3
    assert store.drop_delivered(10, before=86400.0 * 3 + 1) == 0
    assert Reader(path).stored_since(86400.0 * 4) == 1


def legacy(path, rows):
    old = sqlite3.connect(path)
    old.execute(
        "CREATE TABLE QUEUE (internal_id INTEGER PRIMARY KEY, timestamp DOUBLE NOT NULL, message_body TEXT NOT NULL)"
    )
    old.executemany("INSERT INTO QUEUE (timestamp, message_body) VALUES (?, ?)", rows)
    old.commit()
    old.close()


def test_a_queue_of_todays_stations_is_adopted_with_all_its_rows(path):
    legacy(path, [(3.0, '{"variant":"data","data":{"t":3}}'), (1.0, '{"variant":"log","level":"INFO"}'),
                  (2.0, '{"variant":"data","data":{"t":2}}')])  # fmt: skip
    open_for_writing(path).close()
    rows = Reader(path).next_rows(10)
    assert [(r.timestamp, r.rank) for r in rows] == [(2.0, 0), (3.0, 0), (1.0, 1)]
    # A second opening finds nothing left to adopt.
    open_for_writing(path).close()
    assert len(Reader(path).next_rows(10)) == 3


def test_an_adoption_that_is_cut_off_leaves_the_old_queue_whole(path, monkeypatch):
    legacy(path, [(1.0, "{}")])
    monkeypatch.setattr("fieldstation.station.store.numbered", lambda _: [(1, "CREATE TABLE half (x);\nBROKEN;")])
    with pytest.raises(sqlite3.Error):
        open_for_writing(path)
    monkeypatch.undo()
    open_for_writing(path).close()
    assert Reader(path).depth() == 1


def test_a_file_that_is_no_database_is_set_aside_and_told(path):
    path.write_bytes(b"this is no database" * 500)
    notes = []
    rescue.open_or_rescue(path, notes).close()
    assert "set aside" in notes[0]
    assert [p for p in path.parent.glob("queue.sqlite3.broken-*") if p.read_bytes().startswith(b"this is")]


def test_what_can_be_read_of_a_broken_store_is_saved_and_owed_again(path):
    connection = open_for_writing(path)
    store = Store(connection)
    connection.execute("BEGIN")
    for start in range(0, 2000, 100):
        store.add([NewRow(f"id-{n}", 1.0, 0, "x" * 200) for n in range(start, start + 100)])
    store.done("backend", [(0, 1)])
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xff" * 8192)
    notes = []
    rescue.open_or_rescue(path, notes).close()
    assert len(notes) == 1
    saved = Reader(path)
    assert saved.depth() > 500
    assert saved.next_rows(1)[0].id == "id-0"


def test_a_sound_store_is_opened_as_it_is(path, connection):
    Store(connection).add([row(1)])
    notes = []
    rescue.open_or_rescue(path, notes).close()
    assert notes == []


def test_the_ballast_is_given_up_to_make_room(tmp_path, connection):
    store = Store(connection)
    store.add([row(n) for n in range(1, 11)])
    store.done("backend", [(0, n) for n in range(1, 11)])
    ballast = rescue.Ballast(tmp_path / "reserve")
    ballast.fill()
    assert (tmp_path / "reserve").stat().st_size == rescue.BALLAST_BYTES
    assert ballast
    assert ballast.make_room(connection, store)
    assert connection.execute("SELECT count(*) FROM message").fetchone()[0] == 1


def test_with_nothing_delivered_there_is_nothing_to_drop(tmp_path, connection):
    store = Store(connection)
    store.add([row(1), row(2)])
    rescue.Ballast(tmp_path / "reserve").make_room(connection, store)
    assert connection.execute("SELECT count(*) FROM message").fetchone()[0] == 2
