"""The database: migrations, refusals, locks, a full disk. Runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text

from fieldstation.core.errors import SchemaTooNewError, StoreError
from fieldstation.core.security import Principal, Role
from fieldstation.fleet.errors import DeviceBusyError
from fieldstation.fleet.model import Device, DeviceState, Holder, Lease, Worker
from fieldstation.fleet.store import Store, ledger, schema, tables

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def store(database):
    store = Store(database)
    store.open()
    yield store
    store.close()


def lease(name: str, *serials: str, fence: int = 1) -> Lease:
    until = datetime.now(UTC) + timedelta(hours=1)
    fences = dict.fromkeys(serials, fence)
    return Lease(name, f"hash-{name}", Holder("bob", "exp"), "bench", "pulsecount", {"a": 1}, fences, until, True)


def fill(connection) -> None:
    ledger.save_worker(connection, Worker("bench", "http://w:8081", "1", ("pulsecount",), "b1"))
    for serial in ("A1", "A2", "A3"):
        device = Device(serial, "bench", "fake", DeviceState.AVAILABLE, ("pulsecount",), labels={"rev": "2"})
        ledger.save_device(connection, device)


def test_what_was_written_is_read_back(store):
    store.transact_now(fill)
    taken = lease("l1", "A1", "A2")
    store.transact_now(lambda c: ledger.take(c, [taken]))
    contents = store.transact_now(ledger.read)
    assert contents.leases == [taken]
    assert [worker.name for worker in contents.workers] == ["bench"]
    states = {device.serial: (device.state, device.fence, device.labels) for device in contents.devices}
    assert states["A1"] == (DeviceState.RESERVED, 1, {"rev": "2"})
    assert states["A3"] == (DeviceState.AVAILABLE, 0, {"rev": "2"})
    store.transact_now(lambda c: ledger.end(c, ["A1", "A2"], ["l1"], "done"))
    assert store.transact_now(ledger.read).leases == []


def test_a_device_is_never_leased_twice_and_a_refusal_leaves_nothing(store):
    store.transact_now(fill)
    store.transact_now(lambda c: ledger.take(c, [lease("l1", "A2")]))
    for second in (lease("l2", "A1", "A2", fence=2), lease("l3", "A1", "Z9")):
        with pytest.raises(DeviceBusyError):
            store.transact_now(lambda c, second=second: ledger.take(c, [second]))
    assert [known.id for known in store.transact_now(ledger.read).leases] == ["l1"]
    # A fencing number is used once, also after the lease has ended.
    store.transact_now(lambda c: ledger.end(c, ["A2"], ["l1"], "done"))
    with pytest.raises(DeviceBusyError):
        store.transact_now(lambda c: ledger.take(c, [lease("l4", "A2", fence=1)]))
    store.transact_now(lambda c: ledger.take(c, [lease("l5", "A2", fence=2)]))


def test_many_who_take_at_once_from_two_processes_share_nothing(store, database):
    """Two stores on one database stand for two controls; each device goes to exactly one lease."""
    store.transact_now(fill)
    other = Store(database)

    def attempt(number: int) -> bool:
        mine = store if number % 2 else other
        serials = ("A1", "A2", "A3") if number % 4 < 2 else ("A3", "A2", "A1")  # locked in one order all the same
        try:
            mine.transact_now(lambda c: ledger.take(c, [lease(f"l{number}", *serials)]))
        except DeviceBusyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(24))) == 1
    other.close()


def test_an_older_database_is_upgraded_and_keeps_its_rows(database):
    store = Store(database)
    engine = store._connected()
    schema.upgrade(engine, "test", "0001")
    now = datetime.now(UTC)
    with engine.begin() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("fleet_device")}
        assert "labels" not in columns
        old = "serial, worker, driver, state, health, reason, kinds, fence"
        rows = (
            (
                "fleet_worker (name, url, version, kinds, boot, state, draining)",
                "'b','http://w','1','[]','x','online',false",
            ),
            (f"fleet_device ({old})", "'A1','b','fake','reserved','ok','','[\"pulsecount\"]',7"),
        )
        for into, values in rows:
            connection.execute(text(f"INSERT INTO {into} VALUES ({values})"))
        connection.execute(
            tables.lease.insert().values(
                id="l1",
                token_hash="h",
                user="u",
                client="c",
                worker="b",
                kind="pulsecount",
                args={},
                until=now,
                had_socket=True,
                taken_at=now,
            )
        )
        connection.execute(tables.reservation.insert().values(serial="A1", lease="l1", fence=7))
        connection.execute(tables.token.insert().values(hash="x", user="ada", role="admin", created_at=now))
        connection.execute(
            tables.audit.insert().values(at=now, user="u", client="c", action="reserve", target="A1", detail="")
        )
    assert store.migrate() == ("0001", schema.revisions()[-1])
    contents = store.transact_now(ledger.read)
    assert contents.devices == [Device("A1", "b", "fake", DeviceState.RESERVED, ("pulsecount",), fence=7)]
    assert [(known.id, known.fences) for known in contents.leases] == [("l1", {"A1": 7})]
    assert [row[0] for row in store.list_tokens()] == ["ada"]
    assert len(store.transact_now(lambda c: ledger.read_audit(c, 10))) == 1
    assert store.migrate() == (schema.revisions()[-1], schema.revisions()[-1])
    store.close()


def test_a_migration_that_fails_half_way_leaves_everything_as_it_was(database):
    store = Store(database)
    engine = store._connected()
    schema.upgrade(engine, "test", "0001")
    with engine.begin() as connection:  # the last statement of the next step will trip over this
        connection.execute(text("CREATE INDEX fleet_audit_at ON fleet_audit (target)"))
    with pytest.raises(StoreError, match="fleet_audit_at"):
        store.migrate()
    with engine.begin() as connection:
        assert schema.current(connection) == "0001"
        assert "labels" not in {column["name"] for column in inspect(connection).get_columns("fleet_device")}
        connection.execute(text("DROP INDEX fleet_audit_at"))
    assert store.migrate() == ("0001", schema.revisions()[-1])
    store.close()


def test_the_migrated_tables_are_those_the_code_knows(store):
    def compare(connection) -> list:
        from alembic.autogenerate import compare_metadata
        from alembic.runtime.migration import MigrationContext

        options = {"version_table": schema.VERSION_TABLE}
        return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)

    assert store.transact_now(compare) == []
    names = store.transact_now(lambda c: inspect(c).get_table_names())
    assert all(name.startswith("fleet_") for name in names)


def test_the_files_numbers_are_the_revisions():
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(schema.__file__).parent.parent / "migrations")).walk_revisions()
    assert [script.revision for script in scripts] == schema.revisions()[::-1]


def test_a_newer_schema_is_refused_and_left_alone(store, database):
    store.transact_now(lambda c: c.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")))
    with pytest.raises(SchemaTooNewError, match=r"newer than this version knows.*Upgrade Fieldstation"):
        Store(database).open()
    version = store.transact_now(lambda c: c.execute(text(f"SELECT version_num FROM {schema.VERSION_TABLE}")).scalar())
    assert version == "9999"


def test_two_that_migrate_at_once_do_not_disturb_each_other(database):
    stores = [Store(database) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert {after for _, after in pool.map(Store.migrate, stores)} == {schema.revisions()[-1]}
    for store in stores:
        store.close()


def test_another_programs_tables_are_left_alone(database):
    store = Store(database)
    with store._connected().begin() as connection:
        connection.execute(text("CREATE TABLE device (id TEXT PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
        connection.execute(text("INSERT INTO device VALUES ('theirs')"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('abc')"))
    store.open()
    assert store.transact_now(lambda c: c.execute(text("SELECT id FROM device")).scalar()) == "theirs"
    assert store.transact_now(lambda c: c.execute(text("SELECT version_num FROM alembic_version")).scalar()) == "abc"
    store.close()


def test_tokens_are_kept_as_hashes(store):
    token = store.add_token("ada", Role.ADMIN)
    store.add_token("ada", Role.USER)
    assert store.lookup(token) == Principal("ada", Role.ADMIN)
    assert store.lookup("fst_other") is None
    assert [(user, role) for user, role, _ in store.list_tokens()] == [("ada", "admin"), ("ada", "user")]
    assert token not in str(store.transact_now(lambda c: c.execute(select(tables.token)).all()))
    assert store.revoke_tokens("ada") == 2
    assert store.lookup(token) is None


def test_libpq_words_and_every_spelling_of_the_address_are_understood(postgres):
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    words = f"host={postgres.host} port={postgres.port} dbname={name} user=postgres"
    for spelling in (
        words,
        url,
        url.replace("postgresql:", "postgres:"),
        url.replace("postgresql:", "postgresql+psycopg:"),
    ):
        store = Store(spelling)
        assert store.migrate()[1] == schema.revisions()[-1]
        store.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mysql://u:secret@h/db", "mysql:// is not supported"),
        ("postgresql://u:secret@127.0.0.1:1/db", "refused"),
        ("host=127.0.0.1 port=1 password=secret user=u", "refused"),
        ("host=127.0.0.1 colour=blue", "colour"),
        ("sqlite://", "sqlite:///FILE"),
        ("sqlite:///", "sqlite:///FILE"),
        ("sqlite:////proc/nowhere/fleet.db", "cannot be used"),
    ],
)
def test_a_wrong_address_is_one_sentence_without_the_password(address, says):
    with pytest.raises(StoreError) as caught:
        Store(address).open()
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("dear diary, " * 1000)
    with pytest.raises(StoreError, match="not a database"):
        Store(f"sqlite:///{file}").open()
    assert file.read_text() == "dear diary, " * 1000


def test_sqlite_syncs_every_commit(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'f.db'}")
    store.open()
    pragmas = store.transact_now(
        lambda c: [
            c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    )
    assert pragmas == ["wal", 2, 1]
    store.close()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_full_disk_refuses_reservations_in_one_sentence_and_nothing_changes(start, workers, apis):
    """`max_page_count` makes SQLite answer as a full disk does, without needing one."""
    control = await start()
    worker = await workers(control.url)
    api = apis(control.url)
    store = control.service.store
    await control.control.record.flush()
    pages = store.transact_now(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
    connection = store._connected().raw_connection()
    connection.execute(f"PRAGMA max_page_count={pages}")
    refused = 0
    for number in range(200):  # until the last free page is used
        status, body = await api.post(
            "/reserve", amount=1, name=f"n{number}", kind="pulsecount", args={"x": "y" * 4000}
        )
        if status != 200:
            assert (status, body["error"]["code"]) == (503, "store")
            assert "full" in body["error"]["message"]
            refused += 1
            break
        assert (await api.post("/endall", name=f"n{number}"))[0] in (200, 503)
    assert refused
    before = (await api.get("/api/fleet/reservations"))[1]
    calls = len(worker.calls)
    assert (await api.post("/reserve", amount=1, name="bob", kind="pulsecount", args={"x": "y" * 4000}))[0] == 503
    assert (await api.get("/api/fleet/reservations"))[1] == before
    assert len(worker.calls) == calls
    connection.execute("PRAGMA max_page_count=1000000")  # somebody has made room
    status, _ = await api.post("/reserve", amount=1, name="bob", kind="pulsecount", args={})
    assert status == 200


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_control_lives_through_a_restart_of_postgresql(postgres, start, workers, apis):
    control = await start()
    await workers(control.url)
    api = apis(control.url)
    await api.reserve(1, name="bob")
    await asyncio.to_thread(postgres.stop)
    status, body = await api.post("/reserve", amount=1, name="eve", kind="pulsecount", args={})
    assert (status, body["error"]["code"]) == (503, "store")
    assert await api.amount() == 3
    await asyncio.to_thread(postgres.start)
    await api.reserve(1, name="eve")
    assert [row["client"] for row in (await api.get("/api/fleet/reservations"))[1]] == ["bob", "eve"]


def test_migrate_on_the_command_line_says_what_it_did(tmp_path):
    address = f"sqlite:///{tmp_path / 'deep' / 'f.db'}"
    command = [sys.executable, "-m", "fieldstation", "fleet", "migrate", "--database", address]
    first = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert first.stdout.strip() == f"{address} was migrated from nothing: schema {schema.revisions()[-1]}"
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "is up to date" in second.stdout
    file = Path(tmp_path / "deep" / "f.db")
    copy = tmp_path / "newer.db"
    shutil.copy(file, copy)
    with sqlite3.connect(copy) as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    connection.close()
    command[-1] = f"sqlite:///{copy}"
    third = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert third.returncode == 1
    assert third.stderr.startswith("fieldstation: The database")
    assert "Traceback" not in third.stderr


@pytest.mark.parametrize("again", [False, True])
async def test_a_commit_that_was_done_but_not_confirmed_blocks_no_device(start, workers, apis, monkeypatch, again):
    """The connection breaks after the database has committed a reservation: control is told that it failed."""
    monkeypatch.setattr("fieldstation.fleet.control.record.FLUSH_S", 3600)  # what is written here, and when, we say
    control = await start()
    await workers(control.url)
    api = apis(control.url)
    store = control.service.store
    await control.control.record.flush()
    read = store.read

    async def broken(work):
        await read(work)
        raise StoreError(path="test", problem="the connection was lost")

    monkeypatch.setattr(store, "read", broken)
    asked = {"serials": ["A1"], "name": "bob", "kind": "pulsecount", "args": {}}
    assert (await api.post("/reserveserials", **asked))[0] == 503
    assert len(store.transact_now(ledger.read).leases) == 1
    if again:  # what sets it right is done and not confirmed, too
        with pytest.raises(StoreError):
            await control.control.record.flush()
        assert store.transact_now(ledger.read).leases == []
    monkeypatch.undo()
    status, [row] = await api.post("/reserveserials", **asked)
    assert (status, row["fence"]) == (200, 2)  # the number that may have been used is never used again
    [lease_now] = store.transact_now(ledger.read).leases
    assert lease_now.fences == {"A1": 2}
    assert (await api.post("/endall", name="bob"))[0] == 200
    assert store.transact_now(ledger.read).leases == []
