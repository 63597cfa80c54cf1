"""Only who holds a device commands it."""

import asyncio

import aiohttp
import pytest

from fieldstation.testing import eventually

pytestmark = [pytest.mark.timeout(30), pytest.mark.asyncio(loop_scope="module")]

A, B = "1111111111111111", "2222222222222222"


async def refusal(holder, serial, number=1):
    answer = await holder.evaluate(serial, number)
    refused = await holder.until("refused", serial)
    assert refused["reason"] == answer["error"]["code"]
    assert refused["message"] == answer["error"]["message"]
    return answer["error"]["code"]


async def test_a_stranger_is_refused(fleet):
    await fleet.control.assign(A)
    async with fleet.hold() as stranger:
        assert await refusal(stranger, A) == "no_lease"
        assert await refusal(stranger, B) == "no_lease"
    async with fleet.hold("fsl_guessed") as guesser:
        assert await refusal(guesser, A) == "no_lease"


async def test_a_holder_cannot_command_somebody_elses_device(fleet):
    _, mine = await fleet.control.assign(A)
    await fleet.control.assign(B)
    async with fleet.hold(mine) as holder:
        assert await refusal(holder, B) == "no_lease"
        answer = await holder.evaluate([A, B], 1)
        assert set(answer["refused"]) == {B}
        await holder.until_results(A, 1)
        assert holder.results(B) == {}


async def test_a_holder_whose_reservation_ended_is_told_so(fleet):
    lease, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        await fleet.control.release(lease)
        assert await refusal(holder, A) == "ended"


async def test_events_go_only_to_sockets_that_presented_the_lease(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold() as stranger, fleet.hold(token) as holder:
        await holder.evaluate(A, 1)
        await holder.until_results(A, 1)
        assert stranger.events == []


async def test_an_old_fencing_number_is_refused(fleet):
    lease, token = await fleet.control.assign(A)
    stale = {**lease, "id": "old", "fences": {A: lease["fences"][A] - 1}}
    answer = await fleet.control.call("assign", stale)
    assert answer["refused"] == {A: "stale_fence"}
    async with fleet.hold(token) as holder:
        await holder.evaluate(A, 1)
        await holder.until_results(A, 1)


async def test_a_newer_lease_takes_the_device_from_an_older_one(fleet):
    lease, old = await fleet.control.assign(A)
    async with fleet.hold(old) as before:
        await before.until("initialized", A)
        newer, token = fleet.control.lease(A)
        newer["fences"] = {A: lease["fences"][A] + 5}
        assert (await fleet.control.call("assign", newer))["refused"] == {}
        assert await refusal(before, A) == "ended"
        async with fleet.hold(token) as after:
            await after.evaluate(A, 1)
            await after.until_results(A, 1)
            assert before.results(A) == {}


async def test_an_extension_lets_a_lease_live_on(fleet):
    lease, token = await fleet.control.assign(A, for_s=1.0)
    async with fleet.hold(token) as holder:
        assert await fleet.control.call("extend", {"lease": lease["id"], "for_s": 60}) == {"ok": True}
        with pytest.raises(AssertionError):
            await eventually(lambda: fleet.control.devices[A]["state"] != "reserved", 2.0)
        await holder.evaluate(A, 1)
        await holder.until_results(A, 1)


async def test_a_lease_presented_before_control_told_the_worker_is_honoured(fleet):
    lease, token = fleet.control.lease(A)
    async with fleet.hold(token) as early, fleet.hold() as later:
        presenting = asyncio.create_task(later.call("present", token))
        assert (await fleet.control.call("assign", lease))["refused"] == {}
        assert await presenting == {"ok": True}
        await early.evaluate(A, 1)
        await eventually(lambda: early.results(A) or later.results(A))


async def test_control_hears_how_many_sockets_present_a_lease(fleet):
    lease, token = await fleet.control.assign(A)
    async with fleet.hold(token), fleet.hold(token):
        await eventually(lambda: {"lease": lease["id"], "sockets": 2} in fleet.control.said("presence"))
    await eventually(lambda: fleet.control.said("presence")[-1] == {"lease": lease["id"], "sockets": 0})


async def test_health_and_metrics_tell_what_is_held_and_log_lines_carry_the_lease(fleet):
    lease, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder, aiohttp.ClientSession() as session:
        await holder.until("initialized", A)
        async with session.get(fleet.worker.url + "/health") as answer:
            assert answer.status == 200
            health = await answer.json()
        shown = {key: health[key] for key in ("ok", "name", "connected", "draining", "leases", "sockets", "devices")}
        assert shown == {
            "ok": True,
            "name": "w",
            "connected": True,
            "draining": False,
            "leases": 1,
            "sockets": 1,
            "devices": {"reserved": 1, "available": 1},
        }
        async with session.get(fleet.worker.url + "/metrics") as answer:
            text = await answer.text()
        assert 'fieldstation_worker_devices{state="reserved"} 1.0' in text
        assert "fieldstation_worker_leases 1.0" in text
    await fleet.control.release(lease)

    def lines() -> list[list]:
        found = [line for body in fleet.control.said("log") for line in body["logs"] if len(line) == 3]
        return [line for line in found if line[2].get("lease") == lease["id"]]

    await eventually(lambda: any("no longer held" in line[1] for line in lines()), 15)
    assert any(line[1].startswith("held by me as pulsecount") for line in lines())
    assert all(line[2]["device"] == A for line in lines())
