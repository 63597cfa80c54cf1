"""When leases end, and when they do not."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from fieldstation.fleet.store import ledger
from fieldstation.testing import eventually

pytestmark = pytest.mark.timeout(90)


async def held(api) -> list[str]:
    return [row["serial"] for row in (await api.get("/api/fleet/reservations"))[1]]


async def nobody_holds(api) -> bool:
    return await held(api) == []


async def last_reason(api) -> str:
    history = (await api.get("/api/fleet/events"))[1]
    return next(entry["detail"] for entry in history if entry["action"] == "end")


async def test_a_lease_ends_when_its_time_is_over(start, workers, listeners, apis):
    control = await start(lease_s=0.3)
    worker = await workers(control.url)
    api = apis(control.url)
    bob = await listeners(control.url, "bob")
    [row] = await api.reserve(1)
    await eventually(lambda: nobody_holds(api))
    assert await last_reason(api) == "its time was over"
    await eventually(lambda: bob.count("reservation end", row["serial"]) == 1)
    await eventually(lambda: "release" in [event for event, _ in worker.calls])


async def test_a_lease_that_is_extended_lives_on(start, workers, apis):
    control = await start(lease_s=2)
    await workers(control.url)
    api = apis(control.url)
    started = time.monotonic()
    [row] = await api.reserve(1)
    while time.monotonic() - started < 2.6:
        assert await api.get("/extend", name="bob", serials=[row["serial"]]) == (200, [row["serial"]])
    assert await held(api) == [row["serial"]]


async def test_a_lease_ends_after_the_grace_time_when_its_holder_is_gone(start, workers, listeners, apis):
    control = await start(grace_s=0.2)
    await workers(control.url)
    api = apis(control.url)
    bob, second = await listeners(control.url, "bob"), await listeners(control.url, "bob")
    await api.reserve(2, name="bob")
    await bob.close()
    await asyncio.sleep(0.4)  # more than the grace time: the second socket keeps the lease
    assert len(await held(api)) == 2
    await second.close()
    await eventually(lambda: nobody_holds(api))
    assert await last_reason(api) == "its holder has gone"


async def test_a_holder_that_is_back_within_the_grace_time_keeps_its_lease(start, workers, listeners, apis):
    control = await start(grace_s=0.5)
    await workers(control.url)
    api = apis(control.url)
    bob = await listeners(control.url, "bob")
    await api.reserve(1, name="bob")
    await bob.close()
    await listeners(control.url, "bob")
    await asyncio.sleep(0.8)  # more than the grace time
    assert len(await held(api)) == 1


async def test_a_lease_taken_without_a_socket_runs_to_its_end(start, workers, apis):
    control = await start(grace_s=0.05)
    await workers(control.url)
    api = apis(control.url)
    await api.reserve(1)
    await asyncio.sleep(0.3)  # six grace times
    assert len(await held(api)) == 1


async def test_a_socket_on_the_worker_counts_too(start, workers, apis):
    control = await start(grace_s=0.2)
    worker = await workers(control.url)
    api = apis(control.url)
    await api.reserve(1)
    [lease] = worker.leases
    assert await worker.say("presence", {"lease": lease, "sockets": 1}) == {"ok": True}
    await asyncio.sleep(0.4)  # more than the grace time
    assert len(await held(api)) == 1
    await worker.say("presence", {"lease": lease, "sockets": 0})
    await eventually(lambda: nobody_holds(api))


async def test_the_grace_time_waits_while_the_worker_is_away(start, workers, apis):
    control = await start(grace_s=0.2, dead_after_s=60)
    worker = await workers(control.url)
    api = apis(control.url)
    await api.reserve(1)
    [lease] = worker.leases
    await worker.say("presence", {"lease": lease, "sockets": 1})
    await worker.say("presence", {"lease": lease, "sockets": 0})
    await worker.close()
    await asyncio.sleep(0.5)  # more than the grace time
    assert len(await held(api)) == 1
    again = await workers(control.url)
    assert [known["id"] for known in again.hello_answer["leases"]] == [lease]
    await eventually(lambda: nobody_holds(api))


async def test_a_restart_of_control_loses_nothing_and_restarts_the_grace_clocks(start, workers, listeners, apis):
    first = await start(grace_s=0.4, dead_after_s=60)
    worker = await workers(first.url)
    api = apis(first.url)
    bob = await listeners(first.url, "bob")
    rows = await api.reserve(2, name="bob")
    before = (await api.get("/api/fleet/reservations"))[1]
    await bob.close()
    await worker.close()
    await first.stop()
    second = await start(grace_s=0.4, dead_after_s=60)
    api = apis(second.url)
    assert (await api.get("/api/fleet/reservations"))[1] == before
    back = await workers(second.url)
    back.leases = worker.leases
    [lease] = back.hello_answer["leases"]
    assert lease["fences"] == {row["serial"]: row["fence"] for row in rows}
    assert await api.amount() == 2
    await eventually(lambda: nobody_holds(api))
    assert await last_reason(api) == "its holder has gone"


async def test_a_lease_that_ran_out_while_control_was_down_can_still_be_extended(start, workers, apis):
    first = await start(lease_s=0.5, dead_after_s=60)
    worker = await workers(first.url)
    [row] = await apis(first.url).reserve(1)
    await worker.close()
    await first.stop()
    await asyncio.sleep(0.6)  # longer than the lease
    second = await start(lease_s=0.5, grace_s=5, dead_after_s=60)
    assert await apis(second.url).get("/extendall", name="bob") == (200, [row["serial"]])


async def test_a_step_of_the_wall_clock_ends_nothing(start, workers, apis, monkeypatch):
    control = await start(lease_s=3600)
    await workers(control.url)
    api = apis(control.url)
    await api.reserve(1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)
    await asyncio.sleep(0.2)  # ten looks at the deadlines
    assert len(await held(api)) == 1


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_by_an_hour_ends_nothing_and_lengthens_nothing(
    start, workers, listeners, apis, hours, database
):
    """The wall clock of control (SQLite) or of the database (PostgreSQL) jumps while control runs; then it restarts."""
    control = await start()
    await workers(control.url)
    [row] = await apis(control.url).reserve(1, name="bob", for_s=3000)
    clock, step = control.control.clock, timedelta(hours=hours)
    before = control.service.store.transact_now(ledger.read).leases[0].until
    if database.startswith("sqlite"):
        clock.wall = lambda: datetime.now(UTC) + step
    else:
        told = clock.set
        control.control.leadership._told = lambda now: told(now + step)  # what each beat brings from now on

    def moved() -> bool:
        until = control.service.store.transact_now(ledger.read).leases[0].until
        return abs((until - before - step).total_seconds()) < 60

    await eventually(moved, 60)
    holding = control.control.index.holding_of(row["serial"])
    left_s = holding.deadline - time.monotonic()
    assert 2900 < left_s <= 3000
    assert [r["serial"] for r in (await apis(control.url).get("/api/fleet/reservations"))[1]] == [row["serial"]]
    history = (await apis(control.url).get("/api/fleet/events"))[1]
    assert [line["target"] for line in history if line["action"] == "clock set"] == [f"{hours * 3600:+d} s"]
