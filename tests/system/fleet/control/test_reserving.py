"""Reserving, extending, ending over the documented endpoints, with the real wire and a worker without hardware."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fieldstation.testing import eventually

pytestmark = pytest.mark.timeout(90)


async def test_a_row_carries_both_dialects_and_the_lease_in_the_address(api, worker):
    [row] = await api.reserve(1)
    assert row["url"] == f"http://lease:{row['lease']}@127.0.0.1:9"
    assert row["ip"] == f"lease:{row['lease']}@127.0.0.1"
    assert row["serverport"] == 9
    assert row["fence"] == 1
    assert row["lease"].startswith("fsl_")


async def test_the_worker_knows_the_lease_before_the_client_does(api, worker):
    rows = await api.reserve(2, args={"flush_interval_seconds": 10})
    [(event, lease)] = worker.calls
    assert event == "assign"
    assert lease["fences"] == {row["serial"]: row["fence"] for row in rows}
    assert lease["kind"] == "pulsecount"
    assert lease["args"] == {"flush_interval_seconds": 10}
    assert lease["client"] == "bob"
    assert 3599 < lease["for_s"] <= 3600
    assert all(row["lease"] not in str(lease) for row in rows)  # only its hash


async def test_reserve_is_all_or_nothing(api, worker):
    assert (await api.get("/reserve", amount=5, name="bob", kind="pulsecount", args={}))[0] == 500
    assert await api.amount() == 4
    assert worker.calls == []


async def test_clients_that_reserve_at_once_never_share_a_device(api, worker):
    asked = (api.post("/reserve", amount=1, name=f"c{n}", kind="pulsecount", args={}) for n in range(20))
    answers = await asyncio.gather(*asked)
    serials = [body[0]["serial"] for status, body in answers if status == 200]
    assert Counter(serials) == Counter(["A1", "A2", "A3", "A4"])
    assert [status for status, _ in answers].count(409) == 16


async def test_devices_are_spread_over_workers(api, control, worker, workers):
    await workers(control.url, "other", ("B1", "B2", "B3", "B4"))
    rows = await api.reserve(4)
    assert Counter(row["serial"][0] for row in rows) == {"A": 2, "B": 2}
    assert len({row["lease"] for row in rows}) == 2  # one token for each worker


async def test_fences_grow_with_each_lease(api, worker):
    for fence in (1, 2, 3):
        status, [row] = await api.post("/reserveserials", serials=["A2"], name="bob", kind="variance", args={})
        assert (status, row["fence"]) == (200, fence)
        await api.post("/endall", name="bob")
        await eventually(lambda: worker.devices["A2"]["state"] == "available")
        await eventually(lambda: api.amount(), what="A2 free again")
        await eventually(lambda: _is(api, "A2", "available"))


async def _is(api, serial, state):
    return (await api.states())[serial] == state


async def test_specific_devices_are_all_or_nothing_and_say_what_is_missing(api, worker):
    await api.reserve(1, name="eve", labels={})
    taken = [serial for serial, state in (await api.states()).items() if state == "reserved"]
    wanted = {"serials": ["A4", *taken], "name": "bob", "kind": "pulsecount", "args": {}}
    status, body = await api.post("/reserveserials", **wanted)
    assert status == 409
    assert body["error"]["message"] == f"The device {taken[0]} is not available: it is reserved."
    assert (await api.get("/reserveserials", **wanted))[0] == 500
    assert (await api.states())["A4"] == "available"


async def test_extend_names_every_serial_and_leaves_out_what_others_hold(api, worker):
    mine = [row["serial"] for row in await api.reserve(2, name="bob")]
    theirs = [row["serial"] for row in await api.reserve(1, name="eve")]
    assert await api.get("/extend", name="bob", serials=mine + theirs) == (200, mine)
    assert await api.get("/extendall", name="bob") == (200, mine)
    assert (await api.get("/extend", name="bob", serials=theirs))[0] == 500
    assert (await api.post("/extendall", name="nobody"))[0] == 404
    await eventually(lambda: [event for event, _ in worker.calls].count("extend") == 2)


async def test_end_touches_only_the_clients_own(api, worker):
    mine = [row["serial"] for row in await api.reserve(2, name="bob")]
    theirs = [row["serial"] for row in await api.reserve(1, name="eve")]
    assert await api.get("/end", name="bob", serials=[*theirs, mine[0], "nonsense"]) == (200, [mine[0]])
    assert await api.get("/endall", name="bob") == (200, [mine[1]])
    assert await api.get("/endall", name="bob") == (200, [])
    assert await api.get("/end", name="bob", serials=mine) == (200, [])
    assert (await api.states())[theirs[0]] == "reserved"
    await eventually(lambda: [event for event, _ in worker.calls].count("release") == 2)


async def test_an_ended_device_is_free_only_when_the_worker_has_reset_it(api, worker):
    worker.reflash = False
    [row] = await api.reserve(1)
    await api.post("/endall", name="bob")
    await eventually(lambda: worker.calls[-1][0] == "release")
    assert (await api.states())[row["serial"]] == "await_flash_default"
    assert await api.amount() == 3
    for state in ("flashing_default", "testing", "available"):
        await worker.report(row["serial"], state=state)
        assert (await api.states())[row["serial"]] == state
    assert await api.amount() == 4


async def test_reboot_reaches_the_worker_and_nothing_is_no_error(api, worker):
    assert await api.get("/reboot", serials=[]) == (200, [])
    assert await api.get("/reboot", serials=["A1", "A3"], name=None) == (200, ["A1", "A3"])
    assert worker.calls == [("reboot", {"serial": "A1"}), ("reboot", {"serial": "A3"})]
    worker.answers["reboot"] = {"error": {"code": "x", "message": "no"}}
    assert await api.get("/reboot", serials=["A1"]) == (200, [])


async def test_reboot_does_not_wait_for_a_worker_for_ever(start, workers, apis):
    control = await start(command_s=0.2)
    worker = await workers(control.url)
    worker.answers["reboot"] = None
    assert await apis(control.url).get("/reboot", serials=["A1"]) == (200, [])


async def test_delete_is_for_devices_that_nobody_holds(api, worker):
    assert await api.get("/delete", serials=["A1"], name=None) == (200, ["A1"])
    [row] = await api.reserve(1)
    status, body = await api.post("/delete", serials=[row["serial"]])
    assert status == 409
    assert "end the reservation first" in body["error"]["message"]


async def test_clear_workers_ends_everybodys_reservations_and_tells_the_amount(api, control, worker, listeners):
    bob = await listeners(control.url, "bob")
    serials = [row["serial"] for row in await api.reserve(2, name="bob")]
    await api.reserve(1, name="eve")
    assert await api.get("/clear-workers") == (200, {"status": "ok"})
    await eventually(lambda: all(bob.count("reservation end", serial) for serial in serials))
    await eventually(lambda: bob.amounts[-1:] == [4])


async def test_when_the_worker_refuses_nobody_keeps_anything(api, control, worker, workers):
    other = await workers(control.url, "other", ("B1",))
    other.answers["assign"] = {"refused": {"B1": "it is on fire"}}
    wanted = {"serials": ["A1", "B1"], "name": "bob", "kind": "pulsecount", "args": {}}
    status, body = await api.post("/reserveserials", **wanted)
    assert status == 503
    assert "it is on fire" in body["error"]["message"]
    assert (await api.get("/api/fleet/reservations"))[1] == []
    await eventually(lambda: worker.calls[-1][0] == "release")
    await eventually(lambda: _is(api, "A1", "available"))


async def test_when_the_worker_is_mute_nobody_keeps_anything(start, workers, apis):
    control = await start(assign_wait_s=0.2)
    worker = await workers(control.url)
    api = apis(control.url)
    worker.answers["assign"] = None
    assert (await api.get("/reserve", amount=1, name="bob", kind="pulsecount", args={}))[0] == 500
    assert (await api.get("/api/fleet/reservations"))[1] == []


async def test_draining_workers_offer_nothing(api, worker):
    await worker.say("draining", {})
    assert await api.amount() == 0
    assert (await api.get("/devices"))[1] == []
    status, body = await api.post("/reserveserials", serials=["A1"], name="bob", kind="pulsecount", args={})
    assert status == 409
    assert "shutting down" in body["error"]["message"]


async def test_arguments_may_stand_in_the_address(api, worker):
    status, rows = await api.ask("GET", '/reserve?json={"amount":1,"name":"bob","kind":"pulsecount","args":{}}')
    assert status == 200
    status, ended = await api.ask("POST", f'/end?json={{"serials":["{rows[0]["serial"]}"],"name":"bob","x":1}}')
    assert (status, ended) == (200, [rows[0]["serial"]])


async def test_the_documented_refusals_of_get_and_the_precise_ones_of_post(api, worker):
    wanted = {"amount": 9, "name": "bob", "kind": "pulsecount", "args": {}}
    for path, arguments, old, new in (
        ("/reserve", wanted, 500, 409),
        ("/reserve", {**wanted, "amount": -1}, 500, 400),
        ("/reserve", {**wanted, "kind": "telepathy"}, 500, 404),
        ("/reserveserials", {**wanted, "serials": ["Z9"]}, 500, 404),
        ("/extendall", {"name": "bob"}, 500, 404),
        ("/reboot", {"serials": ["Z9"]}, 500, 404),
        ("/delete", {"serials": ["Z9"]}, 500, 404),
        ("/reserve", {"amount": "1"}, 400, 400),
        ("/reserve", {**wanted, "amount": 0}, 400, 400),
        ("/reserve", {**wanted, "args": None}, 400, 400),
    ):
        for method, expected in (("GET", old), ("POST", new)):
            status, body = await api.ask(method, path, arguments)
            assert status == expected, (method, path)
            assert body["error"]["code"]
            assert body["error"]["message"]
    nothing = {"serials": [], "name": "bob", "kind": "pulsecount", "args": {}}
    assert await api.ask("GET", "/reserveserials", nothing) == (200, [])  # the document knows no refusal for it
    assert (await api.ask("POST", "/reserveserials", nothing))[0] == 400


async def test_every_change_is_in_the_history(api, worker):
    [row] = await api.reserve(1)
    await api.post("/extendall", name="bob")
    await api.post("/reboot", serials=[row["serial"]])
    await api.post("/endall", name="bob")
    history = (await api.get("/api/fleet/events"))[1]
    ours = [entry for entry in history if entry["target"] == row["serial"]]
    actions = [entry["action"] for entry in reversed(ours)]
    assert actions == ["device added", "reserve", "extend", "reboot", "end"]
    assert {entry["user"] for entry in ours[:-1]} == {"local"}
    assert ours[0]["client"] == "bob"
    assert len((await api.ask("GET", "/api/fleet/events?limit=2"))[1]) == 2
    last = history[-1]["id"]
    assert (await api.ask("GET", f"/api/fleet/events?before={last}"))[1] == []
