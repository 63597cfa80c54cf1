"""The send loop, on a fake outbox and a fake server."""

from __future__ import annotations

import asyncio

import pytest

from fieldstation.station.errors import PoisonMessageError
from fieldstation.station.store import QueueRow
from fieldstation.station.uplink import LastMinute, SendLoop
from fieldstation.testing import eventually


class FakeOutbox:
    def __init__(self, rows):
        self.rows = rows
        self.parked = []
        self.asked = 0

    def next_rows(self, count, after):
        self.asked += 1
        left = [r for r in self.rows if r.seq > after[r.rank]]
        return sorted(left, key=lambda r: (r.rank, r.seq))[:count]

    async def forget(self, keys):
        await asyncio.sleep(0)
        self.rows = [r for r in self.rows if (r.rank, r.seq) not in keys]

    async def park(self, row, reason):
        self.parked.append((row.seq, reason))
        self.rows = [r for r in self.rows if r.seq != row.seq]

    async def news(self):
        while True:
            yield
            await asyncio.sleep(0.01)


class FakeServer:
    """Acknowledges at once, unless `held`; rows whose body is `poison` are refused, `nothing` is not sent."""

    def __init__(self):
        self.connected = True
        self.taken = []
        self.most = self.now = 0
        self.held = asyncio.Event()
        self.held.set()

    async def run(self):
        await asyncio.Event().wait()

    def encode(self, row):
        return None if row.body == "nothing" else row

    async def send(self, row):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            await self.held.wait()
            if row.body == "poison":
                raise PoisonMessageError(identifier=row.seq, problem="it is odd")
            self.taken.append(row.seq)
        finally:
            self.now -= 1

    def status(self):
        return {}


def rows(count, **bodies):
    return [QueueRow(n, f"id{n}", 0.0, 0, bodies.get(f"b{n}", "x")) for n in range(1, count + 1)]


def loop(outbox, server, **changes):
    settings = {"max_parallel": 10, "max_drain_s": 60.0, "tell": lambda level, text: None}
    return SendLoop(outbox, server, **settings | changes)


async def drain(sending):
    sending.tear_down()
    await asyncio.wait_for(sending.run(), 5)


async def test_everything_is_sent_oldest_first_and_forgotten_when_acknowledged():
    outbox, server = FakeOutbox(rows(25)), FakeServer()
    await drain(loop(outbox, server))
    assert server.taken == list(range(1, 26))
    assert outbox.rows == []


def test_the_rate_is_that_of_the_last_sixty_seconds():
    clock = [0.0]
    lately = LastMinute(lambda: clock[0])
    for second in range(200):
        clock[0] = float(second)
        lately.add()
        lately.add()
    assert int(lately) == 120
    clock[0] = 229.5
    assert int(lately) == 60
    clock[0] = 1000.0
    assert int(lately) == 0


async def test_no_more_than_the_window_is_on_its_way():
    outbox, server = FakeOutbox(rows(100)), FakeServer()
    server.held.clear()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(loop(outbox, server, max_parallel=7).run())
        await eventually(lambda: server.now == 7)
        server.held.set()
        await eventually(lambda: not outbox.rows)
        task.cancel()
    assert server.most == 7


async def test_nothing_is_forgotten_before_it_is_acknowledged():
    outbox, server = FakeOutbox(rows(5)), FakeServer()
    server.held.clear()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(loop(outbox, server).run())
        await eventually(lambda: server.now == 5)
        task.cancel()
    assert len(outbox.rows) == 5


async def test_fault_01_rows_that_the_server_is_not_told_never_block_the_queue():
    outbox, server = FakeOutbox(rows(60, **{f"b{n}": "nothing" for n in range(1, 51)})), FakeServer()
    await drain(loop(outbox, server, max_parallel=10))
    assert server.taken == list(range(51, 61))
    assert outbox.rows == []


async def test_fault_09_poison_is_set_aside_told_and_blocks_nothing():
    outbox, server, told = FakeOutbox(rows(5, b2="poison")), FakeServer(), []
    await drain(loop(outbox, server, tell=lambda level, text: told.append(text)))
    assert server.taken == [1, 3, 4, 5]
    assert outbox.parked[0][0] == 2
    assert "set aside" in told[0]


async def test_fault_12_a_drain_goes_on_until_the_queue_is_empty():
    outbox, server = FakeOutbox(rows(300)), FakeServer()
    await drain(loop(outbox, server, max_parallel=3))
    assert len(server.taken) == 300


async def test_a_drain_ends_at_its_time_and_what_is_left_stays_owed():
    outbox, server = FakeOutbox(rows(5)), FakeServer()
    server.held.clear()
    now = iter(range(0, 10_000, 2))
    sending = loop(outbox, server, max_drain_s=5.0, clock=lambda: float(next(now)))
    await drain(sending)
    assert server.taken == []
    assert len(outbox.rows) == 5


async def test_a_drain_without_a_line_ends_after_a_while():
    outbox, server = FakeOutbox(rows(5)), FakeServer()
    server.connected = False
    now = iter(range(0, 10_000, 3))
    await drain(loop(outbox, server, max_drain_s=600.0, clock=lambda: float(next(now))))
    assert len(outbox.rows) == 5


async def test_rows_that_are_put_back_are_found_when_nothing_else_is_under_way():
    outbox, server = FakeOutbox(rows(5)[3:]), FakeServer()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(loop(outbox, server).run())
        await eventually(lambda: server.taken == [4, 5])
        outbox.rows = rows(2)
        await eventually(lambda: server.taken == [4, 5, 1, 2])
        task.cancel()


async def test_without_a_line_the_outbox_is_left_alone():
    outbox, server = FakeOutbox(rows(5)), FakeServer()
    server.connected = False
    async with asyncio.TaskGroup() as group:
        sending = loop(outbox, server)
        task = group.create_task(sending.run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert outbox.asked == 0
        server.connected = True
        await eventually(lambda: len(server.taken) == 5)
        task.cancel()
    assert sending.status()["delivered"] == 5


@pytest.mark.parametrize("window", [1, 2, 10_000])
async def test_every_window_delivers_each_row_once(window):
    outbox, server = FakeOutbox(rows(50)), FakeServer()
    await drain(loop(outbox, server, max_parallel=window))
    assert sorted(server.taken) == list(range(1, 51))
    assert len(server.taken) == 50


async def test_an_end_without_drain_takes_in_what_is_acknowledged_and_sends_nothing_more():
    outbox, server = FakeOutbox(rows(50)), FakeServer()
    server.held.clear()
    async with asyncio.TaskGroup() as group:
        sending = loop(outbox, server, max_parallel=5)
        task = group.create_task(sending.run())
        await eventually(lambda: server.now == 5)
        sending.end_soon()
        server.held.set()
        await asyncio.wait_for(asyncio.shield(task), 5)
    assert server.taken == [1, 2, 3, 4, 5]
    assert [r.seq for r in outbox.rows] == list(range(6, 51))
    assert not sending.unforgotten


async def test_an_end_without_drain_does_not_wait_for_a_server_that_is_silent():
    outbox, server = FakeOutbox(rows(5)), FakeServer()
    server.held.clear()
    now = iter(range(10_000))
    async with asyncio.TaskGroup() as group:
        sending = loop(outbox, server, clock=lambda: float(next(now)))
        task = group.create_task(sending.run())
        await eventually(lambda: server.now == 5)
        sending.end_soon()
        await asyncio.wait_for(asyncio.shield(task), 5)
    assert len(outbox.rows) == 5
