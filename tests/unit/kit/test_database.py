"""The SQLite store. It needs a file, and that is all: no socket, no waiting."""

import sqlite3
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fieldstation.core.errors import ConfigError, FieldstationError, SchemaTooNewError, StoreError
from fieldstation.kit.database import Database, QueryError, TableError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass
class Reading:
    time: datetime
    device: str
    celsius: float | None
    good: bool = True
    tags: dict[str, Any] | None = None
    raw: bytes | None = None


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with Database(tmp_path / "lab.db") as database:
        yield database


def test_a_dataclass_declares_a_table_and_rows_come_back_as_they_went_in(db: Database) -> None:
    table = db.table(Reading)
    table.append(Reading(NOON, "pump-2", 21.5, False, {"run": [1, 2]}, b"\x00\xff"))
    table.append(Reading(NOON + timedelta(microseconds=1), "pump-2", None))
    rows = db.query("SELECT * FROM reading ORDER BY time")
    assert rows[0] == {
        "time": NOON,
        "device": "pump-2",
        "celsius": 21.5,
        "good": False,
        "tags": {"run": [1, 2]},
        "raw": b"\x00\xff",
    }
    assert rows[1]["time"] == NOON + timedelta(microseconds=1)
    assert rows[1]["celsius"] is None
    assert table.rows("device = ?", ["pump-2"], limit=1) == rows[:1]


def test_the_first_row_declares_a_named_table(db: Database) -> None:
    readings = db.table("readings")
    readings.append(time=NOON, celsius=21.5)
    readings.append({"time": NOON}, celsius=22)
    readings.append(time=NOON)
    assert [row["celsius"] for row in db.query("SELECT celsius FROM readings")] == [21.5, 22.0, None]
    assert db.tables() == ["readings"]


def test_a_reopened_table_knows_its_columns(tmp_path: Path) -> None:
    for number in (1, 2):
        with Database(tmp_path / "d") as db:
            db.append("t", {"n": number, "when": NOON})
    with Database(tmp_path / "d") as db:
        assert db.query("SELECT * FROM t") == [{"n": 1, "when": NOON}, {"n": 2, "when": NOON}]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"time": NOON, "celsus": 1.0}, "no column celsus"),
        ({"time": NOON, "celsius": "warm"}, "celsius takes float or int, not str 'warm'"),
        ({"time": NOON, "celsius": True}, "not bool"),
        ({"time": "2026-01-31"}, "time takes datetime"),
        ({"time": datetime(2026, 1, 31)}, "no time zone"),  # noqa: DTZ001 - that is the mistake
    ],
)
def test_a_row_with_wrong_columns_is_one_sentence_and_changes_nothing(db: Database, row: Any, words: str) -> None:
    readings = db.table("readings")
    readings.append(time=NOON, celsius=21.5)
    with pytest.raises(TableError, match=words):
        readings.append(row)
    assert len(db.query("SELECT * FROM readings")) == 1


@pytest.mark.parametrize("name", ["a b", "1x", "x;DROP TABLE y", "sqlite_x", "", "ä", "x" * 64])
def test_a_name_that_could_break_out_of_the_sql_is_refused(db: Database, name: str) -> None:
    with pytest.raises(TableError, match="name"):
        db.table(name)
    with pytest.raises(TableError, match="name"):
        db.append("ok", {name: 1})


def test_a_first_row_without_a_value_cannot_declare(db: Database) -> None:
    with pytest.raises(TableError, match="its type is unknown"):
        db.append("t", {"x": None})
    with pytest.raises(TableError, match="no rows yet"):
        db.table("t").latest()


def test_a_new_field_becomes_a_new_column_and_a_changed_one_is_refused(db: Database) -> None:
    @dataclass
    class First:
        n: int

    @dataclass
    class Second:
        n: int
        unit: str | None = None

    @dataclass
    class Third:
        n: str

    db.table(First, name="t").append(First(1))
    db.table(Second, name="t").append(Second(2, "V"))
    assert db.query("SELECT * FROM t") == [{"n": 1, "unit": None}, {"n": 2, "unit": "V"}]
    with pytest.raises(TableError, match="its column n is INTEGER, not TEXT"):
        db.table(Third, name="t")


def test_a_table_another_program_made_is_written_to(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "d") as other:
        other.execute("CREATE TABLE t (a VARCHAR(20), b DOUBLE, c DATETIME)")
    other.close()
    with Database(tmp_path / "d") as db:
        db.append("t", {"a": "x", "b": 1.5, "c": "2026-01-31"})
        assert db.query("SELECT * FROM t") == [{"a": "x", "b": 1.5, "c": "2026-01-31"}]


def test_rows_nobody_waited_for_are_there_after_flush(db: Database) -> None:
    table = db.table(Reading)
    for second in range(5_000):
        table.append(Reading(NOON + timedelta(seconds=second), "a", 1.0), wait=False)
    table.flush()
    assert db.query("SELECT count(*) AS n FROM reading")[0]["n"] == 5_000


def test_rows_are_there_when_the_database_was_closed(tmp_path: Path) -> None:
    with Database(tmp_path / "d") as db:
        db.append("t", {"n": 0})
        for n in range(1, 100):
            db.append("t", {"n": n}, wait=False)
    with Database(tmp_path / "d") as db:
        assert [row["n"] for row in db.query("SELECT n FROM t ORDER BY rowid")] == list(range(100))


def test_many_rows_are_all_there_or_none(db: Database) -> None:
    db.append("t", {"n": 0})
    with pytest.raises(TableError):
        db.table("t").append_many([{"n": 1}, {"n": "two"}])
    assert db.table("t").append_many({"n": n} for n in range(3)) == 3
    assert db.query("SELECT count(*) AS c FROM t")[0]["c"] == 4


def test_eight_threads_append_at_once(db: Database) -> None:
    table = db.table(Reading)

    def work(name: str) -> None:
        for n in range(200):
            table.append(Reading(NOON, name, float(n)))

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = db.query("SELECT device, count(*) AS n FROM reading GROUP BY device")
    assert {row["device"]: row["n"] for row in counts} == {str(n): 200 for n in range(8)}


def test_a_span_of_time_has_its_beginning_and_not_its_end(db: Database) -> None:
    db.table(Reading).append_many(Reading(NOON + timedelta(hours=h), "a", float(h)) for h in range(5))
    table = db.table(Reading)
    assert [r["celsius"] for r in table.between(NOON + timedelta(hours=1), NOON + timedelta(hours=3))] == [1, 2]
    assert len(table.between()) == 5
    assert [r["celsius"] for r in table.latest(2)] == [4, 3]
    assert table.delete_before(NOON + timedelta(hours=4)) == 4
    assert len(table.rows()) == 1


def test_readings_are_thinned_into_steps_of_time(db: Database) -> None:
    table = db.table(Reading)
    table.append_many(Reading(NOON + timedelta(minutes=m), "a", float(m)) for m in range(60))
    thin = table.downsample("celsius", timedelta(minutes=20))
    assert thin == [
        {"time": NOON, "celsius": 9.5, "rows": 20},
        {"time": NOON + timedelta(minutes=20), "celsius": 29.5, "rows": 20},
        {"time": NOON + timedelta(minutes=40), "celsius": 49.5, "rows": 20},
    ]
    assert table.downsample("celsius", timedelta(hours=1), "max", start=NOON)[0]["celsius"] == 59


def test_steps_round_down_before_1970_too(db: Database) -> None:
    table = db.table(Reading)
    table.append(Reading(datetime(1969, 12, 31, 23, 50, tzinfo=UTC), "a", 1.0))
    assert table.downsample("celsius", timedelta(hours=1))[0]["time"] == datetime(1969, 12, 31, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column", "how", "words"),
    [("x", "mean", "no column x"), ("celsius", "median", "not by"), ("celsius", "max", "longer")],
)
def test_thinning_by_nonsense_is_refused(db: Database, column: str, how: str, words: str) -> None:
    step = timedelta(0) if words == "longer" else timedelta(hours=1)
    with pytest.raises(TableError, match=words):
        db.table(Reading).downsample(column, step, how)


def test_a_query_cannot_change_anything(db: Database) -> None:
    db.append("t", {"n": 1})
    with pytest.raises(FieldstationError, match="readonly"):
        db.query("DELETE FROM t")
    assert db.execute("UPDATE t SET n = n + ?", [1]) == 1
    assert db.query("SELECT n FROM t WHERE n = :n", {"n": 2}) == [{"n": 2}]


def test_a_wrong_query_says_what_is_wrong(db: Database) -> None:
    with pytest.raises(QueryError, match="no such table: nowhere"):
        db.query("SELECT * FROM nowhere")


def test_results_become_frames(db: Database) -> None:
    db.table(Reading).append_many(Reading(NOON + timedelta(hours=h), "a", float(h) if h else None) for h in range(3))
    rows = db.query("SELECT time, device, celsius FROM reading")
    assert str(rows.pandas()["time"].dtype).startswith("datetime64")
    assert rows.pandas()["celsius"].sum() == 3
    assert rows.polars()["celsius"].to_list() == [None, 1.0, 2.0]
    empty = db.query("SELECT time, device FROM reading WHERE 0")
    assert list(empty.pandas().columns) == empty.polars().columns == ["time", "device"]


def test_export_writes_csv_and_parquet(db: Database, tmp_path: Path) -> None:
    db.table(Reading).append(Reading(NOON, "ä,b", 1.5, raw=b"\x01"))
    assert db.export(tmp_path / "out.csv", "SELECT time, device, celsius, raw FROM reading") == 1
    assert (tmp_path / "out.csv").read_text() == 'time,device,celsius,raw\n2026-01-31T12:00:00+00:00,"ä,b",1.5,01\n'
    assert db.export(tmp_path / "out.parquet", "SELECT time, device FROM reading") == 1
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist() == [{"time": NOON, "device": "ä,b"}]
    assert db.export(tmp_path / "none.parquet", "SELECT device FROM reading WHERE 0") == 0
    with pytest.raises(QueryError, match=r"\.csv nor in \.parquet"):
        db.export(tmp_path / "out.xlsx", "SELECT 1")


def test_numbered_steps_are_applied_once(tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    steps.mkdir()
    (steps / "0001_first.sql").write_text("CREATE TABLE t (n INTEGER);")
    with Database(tmp_path / "d") as db:
        db.migrate(steps)
        db.append("t", {"n": 1})
        (steps / "0002_second.sql").write_text("ALTER TABLE t ADD COLUMN unit TEXT;")
        db.migrate(steps)
        db.migrate(steps)
        db.append("t", {"n": 2, "unit": "V"})
        assert len(db.query("SELECT unit FROM t")) == 2
        with pytest.raises(SchemaTooNewError):
            db.migrate([(1, "")])


def test_a_backup_is_a_whole_database_and_the_check_finds_nothing(db: Database, tmp_path: Path) -> None:
    db.append("t", {"n": 1})
    db.backup(tmp_path / "copy.db")
    assert db.check() == []
    with Database(tmp_path / "copy.db") as copy:
        assert copy.query("SELECT * FROM t") == [{"n": 1}]


def test_a_database_locked_by_another_program_is_one_sentence_and_the_next_append_works(tmp_path: Path) -> None:
    with Database(tmp_path / "d", timeout_s=0.05) as db:
        db.append("t", {"n": 1})
        other = sqlite3.connect(tmp_path / "d", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"locked for 0\.05 s"):
            db.append("t", {"n": 2})
        db.append("t", {"n": 3}, wait=False)
        with pytest.raises(StoreError, match="locked"):
            db.table("t").flush()
        other.execute("ROLLBACK")
        other.close()
        db.append("t", {"n": 4})
        assert [row["n"] for row in db.query("SELECT n FROM t")] == [1, 4]


def test_a_full_disk_is_one_sentence_and_what_was_written_stays(db: Database) -> None:
    db.append("t", {"data": b"x"})
    db.execute("PRAGMA max_page_count=20")
    with pytest.raises(StoreError, match="full"):
        db.append("t", {"data": bytes(1_000_000)})
    assert db.query("SELECT count(*) AS n FROM t")[0]["n"] == 1
    db.append("t", {"data": b"y"})


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("no database" * 100)
    with pytest.raises((StoreError, ConfigError), match="not a database"):
        Database(tmp_path / "d")


def test_an_error_of_a_row_nobody_waited_for_is_raised_by_the_next_call(tmp_path: Path) -> None:
    db = Database(tmp_path / "d", timeout_s=0.01)
    db.append("t", {"n": 1})
    table = db.table("t")
    other = sqlite3.connect(tmp_path / "d", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    table.append({"n": 2}, wait=False)
    with pytest.raises(StoreError):
        table.flush()
    table.flush()
    other.execute("ROLLBACK")
    other.close()
    db.close()
