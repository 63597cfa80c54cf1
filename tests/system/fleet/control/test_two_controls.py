"""Two controls on one PostgreSQL: one leads. Each test says what it does to the leader."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time

import aiohttp
import pytest
from sqlalchemy import text

from fieldstation.core.errors import StoreError
from fieldstation.fleet.client.session import FleetClient
from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.store import Store, leader, ledger
from fieldstation.fleet.store.database import DatabaseInUseError
from fieldstation.testing import ServerProcess, eventually, free_port

pytestmark = pytest.mark.timeout(180)
on_postgres = pytest.mark.parametrize("database", ["postgresql"], indirect=True)

WANT = {"kind": "pulsecount", "args": {}}
DEADLINE_S = 60


class Pair:
    """Two control processes on one database; `lead` is the address of the one that leads."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.ports = (free_port(), free_port())
        self.urls = tuple(f"http://127.0.0.1:{port}" for port in self.ports)
        self.processes: dict[str, ServerProcess] = {}

    async def start(self, number: int) -> ServerProcess:
        command = ["fieldstation", "fleet", "control", "--port", str(self.ports[number]), "--database", self.database]
        server = ServerProcess(command)
        await asyncio.to_thread(server.wait_ready, DEADLINE_S)
        self.processes[self.urls[number]] = server
        return server

    async def kill(self, url: str) -> None:
        await asyncio.to_thread(self.processes.pop(url).kill)

    def signal(self, url: str, number: int) -> None:
        os.kill(self.processes[url].process.pid, number)

    async def stop(self) -> None:
        for server in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.process.pid, signal.SIGCONT)
        for server in self.processes.values():
            await asyncio.to_thread(server.kill)


async def health(url: str) -> dict:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as session, session.get(url + "/health") as got:
        return await got.json()


async def leads(url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        return (await health(url))["leads"]
    return False


@pytest.fixture
async def pair(database):
    pair = Pair(database)
    yield pair
    await pair.stop()


@pytest.fixture
def stores(database):
    """Two stores that stand for two controls; the first leads."""
    one, two = Store(database), Store(database)
    one.open()
    one.epoch = one.transact_now(lambda c: leader.take(c, leader.look(c), "one"))
    yield one, two
    one.close()
    two.close()


def take_over(store: Store) -> int:
    epoch = store.transact_now(lambda c: leader.take(c, leader.look(c), "two"))
    assert epoch is not None
    return epoch


async def test_a_deposed_leader_can_write_nothing(stores):
    one, two = stores
    entry = ledger.Entry("reserve", "A1")
    await one.transact(lambda c: ledger.write_audit(c, [entry]))
    two.epoch = take_over(two)
    heard = []
    one.deposed = lambda: heard.append(True)
    with pytest.raises(NotLeaderError, match="two"):
        await one.transact(lambda c: ledger.write_audit(c, [entry]))
    assert heard
    assert len(await two.transact(lambda c: ledger.read_audit(c, 10))) == 1
    assert not one.transact_now(lambda c: leader.beat(c, one.epoch))
    one.transact_now(lambda c: leader.leave(c, one.epoch))  # what it says of itself does not matter any more
    assert two.transact_now(lambda c: leader.look(c)).holder == "two"


def test_of_many_who_take_over_at_once_one_leads(stores):
    one, two = stores
    seat = one.transact_now(leader.look)
    taken = [store.transact_now(lambda c: leader.take(c, seat, "x")) for store in (one, two, one, two)]
    assert [epoch for epoch in taken if epoch is not None] == [seat.epoch + 1]
    assert two.transact_now(lambda c: leader.take(c, seat, "late")) is None


@on_postgres
async def test_what_the_old_leader_has_begun_is_there_when_the_new_one_loads(stores):
    """The take-over waits for a transaction that has checked its epoch."""
    one, two = stores
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection) -> None:
        ledger.write_audit(connection, [ledger.Entry("reserve", "A1")])
        begun.set()
        go_on.wait(1.0)

    writing = asyncio.create_task(one.transact(slow))
    await asyncio.to_thread(begun.wait)
    taking = asyncio.create_task(asyncio.to_thread(take_over, two))
    await asyncio.sleep(0.2)
    assert not taking.done()
    go_on.set()
    await writing
    two.epoch = await taking
    assert len(await two.transact(lambda c: ledger.read_audit(c, 10))) == 1


@on_postgres
async def test_a_leader_frozen_inside_a_transaction_is_rolled_back_and_keeps_nobody_waiting(stores, monkeypatch):
    monkeypatch.setattr(leader, "IDLE_S", 1.0)
    one, two = stores
    begun, go_on = threading.Event(), threading.Event()

    def frozen(connection) -> None:
        ledger.write_audit(connection, [ledger.Entry("reserve", "A1")])
        begun.set()
        go_on.wait(DEADLINE_S)
        ledger.write_audit(connection, [ledger.Entry("reserve", "A2")])

    writing = asyncio.create_task(one.transact(frozen))
    await asyncio.to_thread(begun.wait)
    started = time.monotonic()
    two.epoch = await asyncio.to_thread(take_over, two)  # it has to wait until PostgreSQL ends the idle transaction
    assert time.monotonic() - started < DEADLINE_S
    go_on.set()
    with pytest.raises((StoreError, NotLeaderError)):
        await writing
    assert await two.transact(lambda c: ledger.read_audit(c, 10)) == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_second_control_on_an_sqlite_file_is_refused_in_one_sentence(start):
    await start()
    with pytest.raises(DatabaseInUseError, match=r"Another control server uses the database .*need PostgreSQL"):
        await start()


@on_postgres
async def test_one_that_stands_by_says_so_and_changes_nothing(start, apis, workers, listeners):
    first = await start()
    listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    worker = await workers(first.url, url=f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    second = await start()
    api = apis(second.url)
    for status, body in (
        await api.post("/reserve", amount=1, name="bob", **WANT),
        await api.get("/available"),
        await api.get("/api/fleet/devices"),
    ):
        assert (status, body["error"]["code"]) == (503, "not_leader")
        assert "Ask that one" in body["error"]["message"]
    status, text_ = await api.ask("GET", "/")
    assert (status, text_.startswith("This control does not lead")) == (503, True)
    for path in ("/health", "/docs", "/openapi.json", "/metrics"):
        assert (await api.ask("GET", path))[0] == 200
    assert (await api.ask("GET", "/health"))[1]["leads"] is False
    with pytest.raises(Exception, match=r"does not lead|One or more namespaces"):
        await workers(second.url, "other", ("Z1",))
    with pytest.raises(Exception, match=r"does not lead|One or more namespaces"):
        await listeners(second.url, "bob")
    # A leader that stops in order is followed at once, and what it has granted is known.
    [row] = await apis(first.url).reserve(1, name="eve")
    await worker.close()
    await first.stop()
    await eventually(lambda: second.control.leads, DEADLINE_S)
    held = (await api.get("/api/fleet/reservations"))[1]
    assert [(r["serial"], r["client"], r["fence"]) for r in held] == [(row["serial"], "eve", row["fence"])]
    listening.close()


@on_postgres
async def test_a_leader_that_was_frozen_finds_its_writes_refused_and_stands_by(pair, workers, apis, database):
    """SIGSTOP past its lease, the other takes over, SIGCONT: a reservation that waited in its socket is refused."""
    await pair.start(0)
    await pair.start(1)
    old, new = pair.urls
    assert await leads(old)
    devices = (await workers(old)).devices
    [row] = await apis(old).reserve(1, name="bob")
    pair.signal(old, signal.SIGSTOP)
    # It lies in the frozen server's socket until the thaw.
    late = asyncio.create_task(apis(old).post("/reserve", amount=1, name="late", **WANT))
    await eventually(lambda: leads(new), DEADLINE_S)
    await workers(new, devices=devices)
    [mine] = await apis(new).reserve(1, name="eve")
    pair.signal(old, signal.SIGCONT)
    status, body = await late
    assert (status, body["error"]["code"]) == (503, "not_leader")
    await eventually(lambda: stands_by(old), DEADLINE_S)
    held = {r["serial"]: (r["client"], r["fence"]) for r in (await apis(new).get("/api/fleet/reservations"))[1]}
    assert held == {row["serial"]: ("bob", row["fence"]), mine["serial"]: ("eve", mine["fence"])}
    store = Store(database)
    assert {lease.holder.client for lease in store.transact_now(ledger.read).leases} == {"bob", "eve"}
    store.close()
    # And back again: the one that was deposed leads when the other is killed, with all that happened meanwhile.
    await pair.kill(new)
    await eventually(lambda: leads(old), DEADLINE_S)
    again = {r["serial"]: (r["client"], r["fence"]) for r in (await apis(old).get("/api/fleet/reservations"))[1]}
    assert again == held


async def stands_by(url: str) -> bool:
    return (await health(url))["leads"] is False


@on_postgres
async def test_clients_and_workers_follow_the_leader_by_themselves(pair, tmp_path):
    """kill -9 of the leader, its restart, then SIGSTOP of the next one, under a real worker and a client of ours."""
    old, new = pair.urls
    for number in (0, 1):
        await pair.start(number)
    both = f"{old},{new}"
    worker = ServerProcess(
        [
            *("fieldstation", "fleet", "worker", "--control", both, "--name", "bench", "--port", "0"),
            *("--simulate", "3", "--dir", str(tmp_path / "worker")),
        ]
    )
    try:
        await asyncio.to_thread(worker.wait_ready, DEADLINE_S)
        async with FleetClient(both, "bob") as client:
            await eventually(lambda: has(client, 3), DEADLINE_S)
            [first] = await client.reserve(1, wait_s=DEADLINE_S)
            await pair.kill(old)
            [second] = await client.reserve(1, wait_s=DEADLINE_S)
            assert await leads(new)
            await pair.start(0)
            assert not await leads(old)
            # A frozen leader closes no connection: everybody has to find out that another one leads.
            pair.signal(new, signal.SIGSTOP)
            [third] = await client.reserve(1, wait_s=DEADLINE_S)
            assert await leads(old)
            assert client.serials == [first, second, third]
            assert await client.extend(client.serials) == [first, second, third]
            pair.signal(new, signal.SIGCONT)
            await eventually(lambda: stands_by(new), DEADLINE_S)
            assert await client.end(client.serials) == [first, second, third]
            await eventually(lambda: has(client, 3), DEADLINE_S)
    finally:
        await asyncio.to_thread(worker.kill)


async def has(client: FleetClient, amount: int) -> bool:
    return await client.available() == amount


@on_postgres
async def test_a_killed_connection_and_a_restarted_database_heal_by_themselves(
    postgres, start, apis, workers, database
):
    """pg_terminate_backend of every connection, then a restart of PostgreSQL, under a leader and one that stands by."""
    one, two = await start(), await start()
    await workers(one.url)
    api = apis(one.url)
    watcher = Store(database.rpartition("/")[0] + "/postgres")
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
    for _ in range(3):
        watcher.transact_now(lambda c: c.execute(text(kill), {"name": database.rpartition("/")[2]}))
        assert len(await api.reserve(1, name="bob")) == 1
        assert (await api.post("/endall", name="bob"))[0] == 200
        await eventually(lambda: free(api, 4), DEADLINE_S)
    watcher.close()
    await asyncio.to_thread(postgres.stop)
    assert (await api.post("/reserve", amount=1, name="eve", **WANT))[0] == 503
    assert await api.amount() == 4
    await asyncio.to_thread(postgres.start)
    await api.reserve(1, name="eve")
    assert sorted((one.control.leads, two.control.leads)) == [False, True]


async def free(api, amount: int) -> bool:
    return await api.amount() == amount
