"""Who leads, with a row in memory and clocks that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fieldstation.core.errors import StoreError
from fieldstation.core.events import Publisher
from fieldstation.fleet.control.leadership import NOBODY, Leadership
from fieldstation.fleet.control.while_leading import WhileLeading
from fieldstation.fleet.store import leader
from fieldstation.fleet.store.leader import Seat
from fieldstation.testing import eventually

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Row:
    """The row that the controls share."""

    def __init__(self) -> None:
        self.seat = Seat(0, "", 0)
        self.away = False

    def transact_now(self, work: Callable[[Row], Any]) -> Any:
        if self.away:
            raise StoreError(path="test", problem="it is away")
        return work(self)


class Shared:
    """As much of a store as a leadership asks; each control has its own on the same row."""

    is_sqlite = False

    def __init__(self, row: Row) -> None:
        self.transact_now = row.transact_now
        self.epoch: int | None = None
        self.deposed: Callable[[], None] = lambda: None


@pytest.fixture
def row(monkeypatch) -> Row:
    def take(row: Row, seen: Seat, holder: str) -> int | None:
        if row.seat != seen:
            return None
        row.seat = Seat(seen.epoch + 1, holder, 0)
        return row.seat.epoch

    def beat(row: Row, epoch: int) -> datetime | None:
        if row.seat.epoch != epoch:
            return None
        row.seat = replace(row.seat, beat=row.seat.beat + 1)
        return NOW

    def leave(row: Row, epoch: int) -> None:
        if row.seat.epoch == epoch:
            row.seat = replace(row.seat, holder="")

    monkeypatch.setattr(leader, "look", lambda row: row.seat)
    monkeypatch.setattr(leader, "take", take)
    monkeypatch.setattr(leader, "beat", beat)
    monkeypatch.setattr(leader, "leave", leave)
    return Row()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def member(row: Row, name: str, clock: Clock, **options: Any) -> Leadership:
    made = Leadership(Shared(row), lease_s=options.pop("lease_s", 3.0), clock=clock, **options)
    made.name = name
    return made


async def test_the_other_takes_over_when_the_beat_has_stood_still_by_its_own_clock(row):
    one, two, clock = member(row, "one", Clock()), member(row, "two", Clock()), Clock()
    two._clock = clock
    assert await one.seek()
    assert (one.epoch, one.store.epoch) == (1, 1)
    assert not await two.seek()
    assert (two.store.epoch, two.holder) == (NOBODY, "one")
    clock.now += 2.9
    assert not await two.seek()
    leader.beat(row, 1)  # it lives
    clock.now += 2.9
    assert not await two.seek()
    clock.now += 2.9
    assert not await two.seek()
    clock.now += 0.2
    assert await two.seek()
    assert (two.epoch, row.seat.holder) == (2, "two")


async def test_a_restarted_leader_leads_at_once_since_its_port_is_its_own(row):
    assert await member(row, "one:8080", Clock()).seek()
    again = member(row, "one:8080", Clock())
    assert not await again.seek()  # without its port it would have to wait
    assert await again.seek(first=True)
    assert not await member(row, "two:8080", Clock()).seek(first=True)


async def test_after_an_orderly_stop_nobody_waits(row):
    one, two = member(row, "one", Clock()), member(row, "two", Clock())
    await one.seek()
    await two.seek()
    await one.leave()
    assert await two.seek()
    await one.leave()  # it has nothing to leave any more
    assert row.seat.holder == "two"


async def test_a_leader_is_sure_only_while_its_last_beat_is_young(row):
    clock, told = Clock(), []
    one = member(row, "one", clock, lease_s=0.4, told=told.append)
    assert not one.sure
    await one.seek()
    assert one.sure
    holding = asyncio.create_task(one.hold())
    await eventually(lambda: row.seat.beat >= 2)
    assert told[0] == NOW
    row.away = True
    await eventually(lambda: "away" in one.problem)
    clock.now += 1.0
    assert not one.sure  # but it goes on: nobody else can lead either
    assert not holding.done()
    row.away = False
    await eventually(lambda: one.sure and not one.problem)
    row.seat = Seat(2, "two", 0)
    await eventually(holding.done)
    one.stand_by()
    assert not one.sure
    assert one.store.epoch == NOBODY


async def test_a_refused_transaction_deposes_at_once(row):
    one = member(row, "one", Clock(), lease_s=3600)
    await one.seek()
    holding = asyncio.create_task(one.hold())
    await eventually(lambda: row.seat.beat == 1)
    one.store.deposed()
    await eventually(holding.done)


class Service:
    name = "outside"

    def __init__(self, life: list[str], fails: bool = False) -> None:
        self.life = life
        self.fails = fails

    async def start(self) -> None:
        self.life.append("start")

    async def run(self) -> None:
        self.life.append("run")
        if self.fails:
            raise ValueError("once")
        await asyncio.sleep(3600)

    async def stop(self) -> None:
        self.life.append("stop")

    def health(self) -> dict[str, object]:
        return {"ok": False}


class Leader:
    leads = False

    def __init__(self) -> None:
        self.leading: Publisher[bool] = Publisher()

    def set(self, leads: bool) -> None:
        self.leads = leads
        self.leading.publish(leads)


async def test_what_acts_on_the_outside_runs_only_at_the_leader():
    leader_, life = Leader(), []
    service = WhileLeading("outside", leader_, lambda: Service(life))
    await service.start()
    running = asyncio.create_task(service.run())
    await asyncio.sleep(0)
    assert (life, service.health()) == ([], {"ok": True})
    leader_.set(True)
    await eventually(lambda: life == ["start", "run"])
    assert service.health() == {"ok": False}
    leader_.set(False)
    await eventually(lambda: life == ["start", "run", "stop"])
    leader_.set(True)
    await eventually(lambda: life[3:] == ["start", "run"])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert life[5:] == ["stop"]


async def test_what_fails_there_is_started_again(monkeypatch, caplog):
    monkeypatch.setattr("fieldstation.fleet.control.while_leading.AGAIN_S", 0.0)
    leader_, life = Leader(), []
    leader_.leads = True
    made = iter([Service(life, fails=True), Service(life)])
    service = WhileLeading("outside", leader_, lambda: next(made))
    await service.start()
    running = asyncio.create_task(service.run())
    await eventually(lambda: life == ["start", "run", "stop", "start", "run"])
    assert "outside failed and is started again" in caplog.text
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
