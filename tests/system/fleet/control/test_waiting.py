"""Standing in the queue."""

from __future__ import annotations

import asyncio

import pytest

from fieldstation.testing import eventually

pytestmark = pytest.mark.timeout(90)

WANT = {"kind": "pulsecount", "args": {}}


async def test_who_waits_gets_the_device_when_it_is_free(api, worker):
    rows = await api.reserve(4, name="eve")
    waiting = asyncio.create_task(api.post("/reserve", amount=1, name="bob", wait_s=10, **WANT))
    await eventually(lambda: queue_length(api, 1))
    await api.post("/end", name="eve", serials=[rows[2]["serial"]])
    status, [row] = await waiting
    assert (status, row["serial"]) == (200, rows[2]["serial"])


async def test_the_place_says_why_and_how_long(api, worker):
    await api.reserve(3, name="eve")
    status, place = await api.post("/reserve", amount=2, name="bob", wait_s=0, **WANT)
    assert status == 202
    assert place["position"] == 1
    assert place["reason"] == "1 of 2 devices of kind pulsecount is free."
    assert 3590 < place["estimate_s"] <= 3600
    status, second = await api.get("/reserve", amount=1, name="amy", wait_s=0, **WANT)
    assert (status, second["position"]) == (202, 2)
    assert {key: second[key] for key in ("code", "wanted", "free", "exist", "ahead")} == {
        "code": "behind_others",
        "wanted": 1,
        "free": 1,
        "exist": 4,
        "ahead": 1,
    }
    assert second["estimate_s"] > 3590  # bob takes the free one first
    assert second["reason"].endswith("1 request is ahead of yours.")
    status, third = await api.post("/reserve", amount=9, name="max", wait_s=0, **WANT)
    assert third["reason"] == "The fleet has 4 of 9 devices of kind pulsecount; more must be plugged in."
    assert third["estimate_s"] is None


async def test_nobody_overtakes_the_queue_and_the_amount_says_so(api, worker):
    await api.reserve(3, name="eve")
    status, place = await api.post("/reserve", amount=2, name="bob", wait_s=0, **WANT)
    assert status == 202
    assert await api.amount() == 0  # the free one is kept for bob
    assert (await api.get("/reserve", amount=1, name="max", **WANT))[0] == 500
    await api.post("/endall", name="eve")
    again = {"amount": 2, "name": "bob", "ticket": place["ticket"], "wait_s": 10}
    status, rows = await api.post("/reserve", **again, **WANT)
    assert (status, len(rows)) == (200, 2)


async def test_priority_comes_first_then_who_came_first(api, worker):
    held = await api.reserve(4, name="eve")
    order: list[str] = []

    async def wait(name: str, priority: int) -> None:
        status, _ = await api.post("/reserve", amount=1, name=name, wait_s=15, priority=priority, **WANT)
        assert status == 200
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for number, (name, priority) in enumerate((("first", 0), ("second", 0), ("urgent", 5)), start=1):
            group.create_task(wait(name, priority))
            await eventually(lambda: queue_length(api, number))  # noqa: B023 - called before the next turn
        for number, row in enumerate(held[:3], start=1):
            await api.post("/end", name="eve", serials=[row["serial"]])
            await eventually(lambda: len(order) == number)  # noqa: B023 - called before the next turn
    assert order == ["urgent", "first", "second"]


async def queue_length(api, number: int) -> bool:
    probe = {"amount": 1, "name": "probe", "ticket": "probe", "wait_s": 0, "priority": -100}
    _, place = await api.post("/reserve", **probe, **WANT)
    return place["position"] == number + 1


async def test_an_answer_that_was_lost_is_given_again(api, worker):
    want = {"amount": 1, "name": "bob", "ticket": "mine", "wait_s": 1, **WANT}
    first = await api.post("/reserve", **want)
    assert first[0] == 200
    assert await api.post("/reserve", **want) == first
    assert await api.amount() == 3


async def test_a_ticket_is_for_one_request(api, worker):
    await api.reserve(4, name="eve")
    want = {"name": "bob", "ticket": "mine", "wait_s": 0, **WANT}
    assert (await api.post("/reserve", amount=1, **want))[0] == 202
    status, body = await api.post("/reserve", amount=2, **want)
    assert (status, body["error"]["field"]) == (400, "ticket")


async def test_a_place_that_nobody_asks_for_is_dropped(api, worker, monkeypatch):
    await api.reserve(4, name="eve")
    await api.post("/reserve", amount=4, name="bob", wait_s=0, **WANT)
    await api.post("/endall", name="eve")
    monkeypatch.setattr("fieldstation.fleet.control.waiting.FORGET_S", 0.05)
    await eventually(lambda: free(api, 4))


async def free(api, amount: int) -> bool:
    return await api.amount() == amount


async def test_one_who_hangs_up_gets_nothing(api, worker):
    await api.reserve(4, name="eve")
    waiting = asyncio.create_task(api.post("/reserve", amount=1, name="bob", wait_s=15, **WANT))
    await eventually(lambda: queue_length(api, 1))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await api.post("/endall", name="eve")
    reservations = (await api.get("/api/fleet/reservations"))[1]
    assert [row["client"] for row in reservations if row["client"] == "bob"] == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # which has no part in it
async def test_the_place_of_one_who_hangs_up_and_cannot_come_back_is_given_up(api, worker, monkeypatch):
    monkeypatch.setattr("fieldstation.fleet.control.waiting.FORGET_S", 3600)
    await api.reserve(4, name="eve")
    wants = ({"name": "bob"}, {"name": "ann", "ticket": "mine"})
    waiting = [asyncio.create_task(api.post("/reserve", amount=4, wait_s=15, **want, **WANT)) for want in wants]
    await eventually(lambda: queue_length(api, 2))
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await eventually(lambda: queue_length(api, 1))
    assert (await api.post("/reserve", amount=4, wait_s=0, **wants[1], **WANT))[1]["position"] == 1


async def test_one_who_leaves_keeps_nothing_from_others(api, worker):
    await api.reserve(1, name="eve")
    want = {"amount": 4, "name": "bob", "ticket": "mine", "wait_s": 0, **WANT}
    assert (await api.post("/reserve", **want))[0] == 202
    status, body = await api.post("/reserve", amount=1, name="max", **WANT)
    assert (status, await api.amount()) == (409, 0)
    assert "0 are free, 3 more are kept for those who wait in the queue" in body["error"]["message"]
    assert (await api.post("/reserve", **want, leave=True))[0] == 202
    assert await api.amount() == 3
    # The place of one whose line broke is not taken away by the request that broke.
    back = asyncio.create_task(api.post("/reserve", **{**want, "wait_s": 15}, leave=True))
    await eventually(lambda: free(api, 0))
    assert (await api.post("/reserve", **{**want, "wait_s": 0.1}, leave=True))[0] == 202
    assert await api.amount() == 0
    await api.post("/endall", name="eve")
    assert (await back)[0] == 200
    await api.post("/endall", name="bob")
    await eventually(lambda: free(api, 4))
    # The last try is a try: who leaves may be served.
    status, rows = await api.post("/reserve", **{**want, "amount": 3, "ticket": "new"}, leave=True)
    assert (status, len(rows)) == (200, 3)


async def test_labels_choose_devices(api, worker):
    await worker.report("A3", labels={"board": "rev2"})
    rows = await api.reserve(1, labels={"board": "rev2"})
    assert [row["serial"] for row in rows] == ["A3"]
    assert (await api.post("/reserve", amount=1, name="bob", labels={"board": "rev9"}, **WANT))[0] == 409
