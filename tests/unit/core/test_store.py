import sqlite3
import threading
from concurrent.futures import Future, wait

import pytest

from fieldstation.core import store
from fieldstation.core.errors import SchemaTooNewError, StoreError

FIRST = (1, "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT UNIQUE);")
SECOND = (
    2,
    """CREATE TABLE trail (what TEXT);
    CREATE TRIGGER follow AFTER INSERT ON item BEGIN
        INSERT INTO trail VALUES ('one; ' || new.name);
        INSERT INTO trail VALUES ('two');
    END;
    -- a last word without a semicolon
    """,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder with ?#%" / "a.db"


@pytest.fixture
def connection(path):
    connection = store.connect(path)
    store.migrate(connection, [FIRST], path)
    yield connection
    connection.close()


def insert(name):
    return lambda connection: connection.execute("INSERT INTO item (name) VALUES (?)", [name]).lastrowid


def names(path):
    connection = store.connect(path, read_only=True)
    try:
        return [row["name"] for row in connection.execute("SELECT name FROM item ORDER BY id")]
    finally:
        connection.close()


def test_a_store_syncs_every_commit_to_a_write_ahead_log(connection):
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_a_reader_cannot_write(connection, path):
    reader = store.connect(path, read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        insert("x")(reader)
    reader.close()


def test_what_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "text.db").write_text("hello " * 1000)
    for path, read_only in [(tmp_path / "text.db", False), (tmp_path / "absent.db", True), (tmp_path, False)]:
        with pytest.raises(StoreError, match=f"The database {path} cannot be used"):
            store.connect(path, read_only=read_only)


def test_numbered_files_are_read_in_order_and_gaps_are_refused(tmp_path):
    (tmp_path / "0002_b.sql").write_text("two")
    (tmp_path / "0001_a.sql").write_text("one")
    (tmp_path / "notes.txt").write_text("no step")
    assert store.numbered(tmp_path) == [(1, "one"), (2, "two")]
    (tmp_path / "0004_d.sql").write_text("four")
    with pytest.raises(ValueError, match="gaps"):
        store.numbered(tmp_path)


def test_migration_applies_only_what_is_new_and_keeps_the_rows(connection, path):
    insert("kept")(connection)
    store.migrate(connection, [FIRST, SECOND], path)
    store.migrate(connection, [FIRST, SECOND], path)
    insert("new")(connection)
    assert [row[0] for row in connection.execute("SELECT name FROM item")] == ["kept", "new"]
    assert [row[0] for row in connection.execute("SELECT what FROM trail")] == ["one; new", "two"]


def test_a_step_that_fails_leaves_the_database_as_it_was(connection, path):
    broken = (2, "CREATE TABLE half (id);\nINSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError, match="step 2 of its schema failed: no such table: nowhere"):
        store.migrate(connection, [FIRST, broken], path)
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone()[0] == 0
    store.migrate(connection, [FIRST, SECOND], path)


def test_a_database_of_a_newer_version_is_left_alone(connection, path):
    connection.execute("PRAGMA user_version=9")
    with pytest.raises(SchemaTooNewError, match=r"schema 9, newer than this version knows \(1\)"):
        store.migrate(connection, [FIRST], path)


def test_two_processes_may_migrate_at_the_same_moment(path):
    problems = []

    def open_and_migrate(file):
        try:
            connection = store.connect(file)
            store.migrate(connection, [FIRST, SECOND], file)
            connection.close()
        except StoreError as error:
            problems.append(error)

    for turn in range(5):
        threads = [threading.Thread(target=open_and_migrate, args=[path.with_name(str(turn))]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []


class Counting:
    """A connection that counts commits and can fail one of them."""

    def __init__(self, connection):
        self._connection = connection
        self.commits = 0
        self.fail_commit = False

    def execute(self, sql, *args):
        if sql == "COMMIT":
            self.commits += 1
            if self.fail_commit:
                raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(sql, *args)

    def __getattr__(self, name):
        return getattr(self._connection, name)


@pytest.fixture
def writer(connection):
    writer = store.Writer(Counting(connection), batch=50)
    yield writer
    writer.close()


def blocked(writer):
    """Occupy the writer; returns the event that lets it go on, once it has begun to wait."""
    begun, release = threading.Event(), threading.Event()
    writer.submit(lambda connection: (begun.set(), release.wait(5)))
    begun.wait(5)
    return release


def test_a_job_is_durable_when_its_future_resolves(writer, path):
    assert writer.submit(insert("a")).result(5) == 1
    assert names(path) == ["a"]


def test_jobs_that_wait_together_share_a_commit(writer, path):
    release = blocked(writer)
    futures = [writer.submit(insert(str(n))) for n in range(50)]
    release.set()
    wait(futures, 5)
    assert writer._connection.commits == 2
    assert names(path) == [str(n) for n in range(50)]


def test_a_failing_job_is_rolled_back_alone(writer, path):
    def half(connection):
        insert("half")(connection)
        raise ValueError("changed my mind")

    release = blocked(writer)
    futures = [writer.submit(job) for job in (insert("a"), half, insert("a"), insert("b"))]
    release.set()
    wait(futures, 5)
    assert [type(future.exception()) for future in futures] == [
        type(None), ValueError, sqlite3.IntegrityError, type(None)
    ]  # fmt: skip
    assert names(path) == ["a", "b"]
    assert writer._connection.commits == 2


def test_a_commit_that_fails_fails_all_of_its_jobs_and_the_writer_goes_on(writer, path):
    release = blocked(writer)
    writer._connection.fail_commit = True
    futures = [writer.submit(insert(name)) for name in "ab"]
    release.set()
    wait(futures, 5)
    assert all("full" in str(future.exception()) for future in futures)
    writer._connection.fail_commit = False
    writer.submit(insert("later")).result(5)
    assert names(path) == ["later"]


def test_a_transaction_that_sqlite_ended_by_itself_fails_the_whole_batch(writer, path):
    def as_on_a_full_disk(connection):
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    release = blocked(writer)
    futures = [writer.submit(insert("a")), writer.submit(as_on_a_full_disk), writer.submit(insert("b"))]
    release.set()
    wait(futures, 5)
    assert all("full" in str(future.exception()) for future in futures)
    assert names(path) == []


def test_a_job_that_leaves_the_thread_does_not_leave_the_others_waiting(writer):
    release = blocked(writer)
    left, other = writer.submit(lambda connection: exit(3)), writer.submit(insert("a"))
    release.set()
    assert isinstance(left.exception(5), SystemExit)
    assert other.result(5) == 1


def test_a_cancelled_job_is_not_written(writer, path):
    release = blocked(writer)
    future = writer.submit(insert("never"))
    assert future.cancel()
    release.set()
    writer.submit(insert("a")).result(5)
    assert names(path) == ["a"]


def test_jobs_of_one_thread_are_written_in_order(writer, path):
    for number in range(200):
        last = writer.submit(insert(f"{number:03}"))
    last.result(5)
    assert names(path) == [f"{n:03}" for n in range(200)]


def test_closing_writes_what_waits_and_then_refuses(connection, path):
    writer = store.Writer(connection)
    release = blocked(writer)
    futures = [writer.submit(insert(str(n))) for n in range(10)]
    release.set()
    writer.close()
    writer.close()
    assert all(future.done() for future in futures)
    assert len(names(path)) == 10
    with pytest.raises(StoreError, match="closed"):
        writer.submit(insert("late"))


def test_no_job_is_lost_between_submit_and_close(path):
    """Eight threads write while the store is closed: each job is either refused, or written and answered."""
    for turn in range(4):
        file = path.with_name(f"{turn}.db")
        connection = store.connect(file)
        store.migrate(connection, [FIRST], file)
        connection.execute("PRAGMA synchronous=OFF")  # the race is the point here, not the disk
        writer = store.Writer(connection)
        accepted: list[Future] = []

        def work(number, writer=writer, accepted=accepted):
            for step in range(200):
                try:
                    accepted.append(writer.submit(insert(f"{number}-{step}")))
                except StoreError:
                    return

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        writer.close()
        for thread in threads:
            thread.join()
        assert all(future.done() and future.exception() is None for future in accepted)
        assert len(names(file)) == len(accepted)


def test_a_full_disk_refuses_loudly_and_room_made_is_used(writer, path):
    def insert_big(connection):
        connection.execute("INSERT INTO item (name) VALUES (?)", ["x" * 100_000])

    writer.submit(lambda connection: connection.execute("PRAGMA max_page_count=10")).result(5)
    release = blocked(writer)
    futures = [writer.submit(insert_big), writer.submit(insert("small"))]
    release.set()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        futures[0].result(5)
    wait(futures, 5)
    assert names(path) == (["small"] if futures[1].exception() is None else [])
    writer.submit(lambda connection: connection.execute("PRAGMA max_page_count=1000")).result(5)
    writer.submit(insert_big).result(5)
    assert "x" * 100_000 in names(path)
