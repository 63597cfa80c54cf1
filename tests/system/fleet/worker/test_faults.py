"""Boards misbehave: every accepted evaluation still ends in its result, or in a stated failure."""

import asyncio

import pytest

from fieldstation.fleet.sim import answer
from fieldstation.testing import eventually

pytestmark = [pytest.mark.timeout(40), pytest.mark.asyncio(loop_scope="module")]

A, B = "1111111111111111", "2222222222222222"


def right(holder, serial, *numbers):
    return {str(n): str(answer(holder.bitstream(n), serial)) for n in numbers}


@pytest.mark.parametrize("fault", ["drop_byte", "hang", "garbage", "unplug"])
async def test_a_board_that_fails_once_is_flashed_and_loses_no_evaluation(fleet, fault):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        await fleet.worker.tell_boards(cmd="habits", serial=A, faults={fault: 1})
        await holder.evaluate(A, *range(6))
        assert await holder.until_results(A, 6, 20) == right(holder, A, *range(6))
        assert holder.of("failure") == []
        assert fleet.control.devices[A]["state"] == "reserved"


async def test_a_board_that_comes_back_with_another_firmware_is_flashed_again(fleet):
    await fleet.worker.tell_boards(cmd="habits", serial=A, faults={"wrong_firmware": 1})
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.evaluate(A, 1)
        assert await holder.until_results(A, 1, 20) == right(holder, A, 1)


async def test_an_evaluation_that_always_fails_is_given_up_with_its_reason_and_the_next_one_goes_on(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        await fleet.worker.tell_boards(cmd="habits", serial=A, faults={"garbage": 3})
        await holder.evaluate(A, 1, 2)
        assert await holder.until_results(A, 2, 20) == {"1": None, **right(holder, A, 2)}
        assert "3 tries" in holder.reasons()["1"]


async def test_a_board_that_answers_nothing_any_more_fails_its_holder_with_every_evaluation_accounted_for(fleet):
    lease, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        await fleet.worker.tell_boards(cmd="habits", serial=A, faults={"hang": 1000})
        await holder.evaluate(A, 1, 2, 3)
        failure = await holder.until("failure", A, 30)
        assert "no result" in failure["reason"]
        assert await holder.until_results(A, 3) == {"1": None, "2": None, "3": None}
        assert set(holder.reasons()) == {"1", "2", "3"}
        (failed,) = fleet.control.said("failed")
        assert (failed["lease"], failed["serial"]) == (lease["id"], A)
        await eventually(lambda: fleet.control.devices[A]["health"] == "broken")
        # Other devices of the worker did not notice.
        assert fleet.control.devices[B]["state"] == "available"
    # Somebody plugs it in again.
    await fleet.worker.tell_boards(cmd="habits", faults={"hang": 0})
    await fleet.worker.tell_boards(cmd="unplug", serial=A)
    await fleet.worker.tell_boards(cmd="plug", serial=A)
    await fleet.control.available(A)


async def test_a_board_unplugged_in_the_middle_of_a_write_fails_its_holder(fleet):
    _, token = await fleet.control.assign(A, B)
    async with fleet.hold(token) as holder:
        await asyncio.gather(holder.until("initialized", A), holder.until("initialized", B))
        await fleet.worker.tell_boards(cmd="habits", serial=A, back_s=60, faults={"unplug": 1})
        await holder.evaluate([A, B], *range(4))
        await holder.until("failure", A, 20)
        assert await holder.until_results(A, 4) == dict.fromkeys(map(str, range(4)))
        assert await holder.until_results(B, 4) == right(holder, B, *range(4))
        await eventually(lambda: {"serial": A} in fleet.control.said("gone"))
    await fleet.worker.tell_boards(cmd="habits", serial=A, back_s=0.2)


async def test_a_board_that_is_unplugged_and_plugged_in_again_goes_on_for_its_holder(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        await fleet.worker.tell_boards(cmd="unplug", serial=A)
        await holder.evaluate(A, 1)
        await fleet.worker.tell_boards(cmd="plug", serial=A)
        assert await holder.until_results(A, 1, 20) == right(holder, A, 1)
        assert holder.of("failure") == []


async def test_a_board_that_ignores_the_first_touch_is_touched_again(fleet):
    await fleet.worker.tell_boards(cmd="habits", serial=A, faults={"ignore_touch": 1})
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        assert "another try" in fleet.control.devices[A]["reason"]
        assert fleet.control.devices[A]["health"] == "degraded"


async def test_a_board_that_cannot_be_flashed_is_broken_and_says_why(fleet):
    await fleet.worker.tell_boards(cmd="habits", serial=A, faults={"wrong_disk": 1})
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        failure = await holder.until("failure", A, 20)
        assert "HOLIDAY.JPG" in failure["reason"]
    await eventually(lambda: fleet.control.devices[A]["state"] == "broken")
    await fleet.worker.tell_boards(cmd="unplug", serial=A)
    await fleet.worker.tell_boards(cmd="plug", serial=A)
    await fleet.control.available(A)


async def test_a_default_firmware_that_says_nothing_breaks_the_device_with_that_reason(fleet):
    await fleet.worker.tell_boards(cmd="habits", serial=A, faults={"mute": 1})
    lease, _ = await fleet.control.assign(A)
    await fleet.control.release(lease)
    await eventually(lambda: fleet.control.devices[A]["state"] == "broken")
    assert "default firmware" in fleet.control.devices[A]["reason"]
    await fleet.worker.tell_boards(cmd="habits", faults={"mute": 0})
    assert await fleet.control.call("reboot", {"serial": A}) == {"ok": True}
    await fleet.control.available(A)


async def test_a_deleted_device_is_flashed_anew_and_its_holder_is_told(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        assert await fleet.control.call("delete", {"serial": A}) == {"ok": True}
        assert (await holder.until("failure", A))["reason"] == "it was deleted"
    await fleet.control.available(A)


async def test_boards_come_and_go(fleet):
    await fleet.worker.tell_boards(cmd="plug", serial="NEW")
    await fleet.control.available("NEW")
    await fleet.worker.tell_boards(cmd="unplug", serial="NEW")
    await eventually(lambda: "NEW" not in fleet.control.devices)
    assert {"serial": "NEW"} in fleet.control.said("gone")
