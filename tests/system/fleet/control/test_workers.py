"""The line to workers: hello, reports, silence, death, reunion."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
import socketio

from fieldstation.fleet.control.probe import refuses
from fieldstation.testing import eventually, free_port

pytestmark = pytest.mark.timeout(90)


async def state_of(api, name: str = "bench") -> str:
    return {row["name"]: row["state"] for row in (await api.get("/api/fleet/workers"))[1]}[name]


async def is_state(api, state: str) -> bool:
    return await state_of(api) == state


async def test_hello_is_answered_with_all_leases_and_the_beat(api, worker):
    assert worker.hello_answer == {"ok": True, "leases": [], "beat_s": 5, "out_of_service": {}}
    rows = await api.reserve(2, name="bob")
    [lease] = (await worker.hello())["leases"]
    assert lease["client"] == "bob"
    assert set(lease["fences"]) == {row["serial"] for row in rows}


async def test_nothing_counts_before_hello(control):
    sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    await sio.connect(
        control.url, auth={"worker": "w"}, namespaces=["/worker"], transports=["websocket"], wait_timeout=20
    )
    answer = await sio.call("device", {"serial": "A1", "state": "available"}, namespace="/worker")
    assert answer["error"]["message"] == "The field event is wrong: say hello first."
    await sio.disconnect()


async def test_garbage_on_the_line_names_the_field_and_changes_nothing(api, worker):
    before = (await api.get("/api/fleet/devices"))[1]
    for event, argument, field in (
        ("device", {"serial": "A1"}, "state"),
        ("device", {"serial": "A1", "state": "dancing"}, "state"),
        ("device", {"serial": "", "state": "available"}, "serial"),
        ("device", {"serial": "A1", "state": "available", "fence": -1}, "fence"),
        ("device", {"serial": "A1", "state": "available", "kinds": [1]}, "kinds.0"),
        ("device", "A1", "argument"),
        ("presence", {"lease": "x", "sockets": "many"}, "sockets"),
        ("gone", {}, "serial"),
        ("log", {"logs": "x"}, "logs"),
    ):
        answer = await worker.say(event, argument)
        assert answer["error"]["code"] == "bad_request"
        assert f"The field {field} is wrong" in answer["error"]["message"]
    assert (await api.get("/api/fleet/devices"))[1] == before


async def test_a_dead_worker_is_found_out_and_its_holders_hear_failure(start, workers, listeners, apis):
    control = await start(dead_after_s=2, probe_s=0.5)  # the usual timings
    worker = await workers(control.url, url=f"http://127.0.0.1:{free_port()}")
    api = apis(control.url)
    bob = await listeners(control.url, "bob")
    serials = [row["serial"] for row in await api.reserve(2, name="bob")]
    cut_at = time.monotonic()
    await worker.close()
    await eventually(lambda: all(bob.count("failure", serial) for serial in serials), 5)
    assert time.monotonic() - cut_at < 5
    assert bob.count("reservation end") == 2
    await eventually(lambda: is_state(api, "dead"))
    assert await api.amount() == 0
    assert (await api.get("/devices"))[1] == []
    assert (await api.get("/api/fleet/reservations"))[1] == []


async def test_a_port_refuses_when_every_address_of_the_name_does(monkeypatch):
    """`localhost` is often ::1 and 127.0.0.1; both refusing is one error of a kind of its own in asyncio."""
    port = free_port()
    both = [(socket.AF_INET6, 1, 6, "", ("::1", port, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def look_up(host, *rest, **options):
        return both if host == "bench" else await real(host, *rest, **options)

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    assert await refuses(f"http://bench:{port}")
    listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    assert not await refuses(f"http://bench:{port}")
    listening.close()


async def test_a_dead_worker_that_comes_back_offers_its_devices_again(api, control, worker, workers):
    await api.reserve(2, name="bob")
    await worker.close()
    await eventually(lambda: is_state(api, "dead"))
    again = await workers(control.url)
    assert again.hello_answer["leases"] == []
    assert await api.amount() == 4


async def test_a_silent_worker_is_unreachable_and_its_leases_live_on(start, workers, listeners, apis):
    listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    control = await start(beat_s=0.05, silent_beats=2)
    worker = await workers(control.url, url=f"http://127.0.0.1:{port}")
    api = apis(control.url)
    bob = await listeners(control.url, "bob")
    [row] = await api.reserve(1, name="bob")
    await eventually(lambda: is_state(api, "unreachable"))
    assert await api.amount() == 0
    status, body = await api.post("/reserveserials", serials=["A4"], name="eve", kind="pulsecount", args={})
    assert (status, "unreachable" in body["error"]["message"]) == (409, True)
    await worker.close()  # the line goes too; the port still answers
    await asyncio.sleep(0.5)  # several probes
    assert await state_of(api) == "unreachable"
    assert [held["serial"] for held in (await api.get("/api/fleet/reservations"))[1]] == [row["serial"]]
    assert bob.count("failure") == 0
    listening.close()
    await eventually(lambda: is_state(api, "dead"))  # now nobody listens there any more
    await eventually(lambda: bob.count("failure", row["serial"]) == 1)


async def test_a_beat_brings_a_silent_worker_back(start, workers, apis):
    control = await start(beat_s=0.05, silent_beats=2)
    worker = await workers(control.url)
    api = apis(control.url)
    await eventually(lambda: is_state(api, "unreachable"))
    assert await worker.say("beat", {}) == {"ok": True}
    assert await api.amount() == 4


async def test_an_unplugged_device_is_a_failure_for_its_holder_and_is_gone(api, control, worker, listeners):
    bob = await listeners(control.url, "bob")
    [row] = await api.reserve(1, name="bob")
    del worker.devices[row["serial"]]  # or it would report it when the lease is released
    await worker.say("gone", {"serial": row["serial"]})
    await eventually(lambda: bob.count("failure", row["serial"]) == 1)
    await eventually(lambda: bob.count("reservation end", row["serial"]) == 1)
    await eventually(lambda: unknown(api, row["serial"]))
    await worker.report(row["serial"])  # plugged in again
    assert await api.amount() == 4


async def unknown(api, serial: str) -> bool:
    return serial not in await api.states()


async def test_a_device_that_fails_ends_its_reservation_but_the_worker_has_told_the_holder(
    api, control, worker, listeners
):
    bob = await listeners(control.url, "bob")
    [row] = await api.reserve(1, name="bob")
    [lease] = worker.leases
    await worker.say("failed", {"lease": lease, "serial": row["serial"], "reason": "it smokes"})
    await eventually(lambda: bob.count("reservation end", row["serial"]) == 1)
    assert bob.count("failure") == 0
    history = (await api.get("/api/fleet/events"))[1]
    assert any(entry["action"] == "device failed" and entry["detail"] == "it smokes" for entry in history)


async def test_a_report_from_before_the_lease_frees_nothing(api, worker):
    [row] = await api.reserve(1, name="bob")
    stale = worker.device(row["serial"], fence=0)
    await worker.say("device", stale)
    assert (await api.states())[row["serial"]] == "reserved"
    worker.reflash = False
    await api.post("/endall", name="bob")
    await worker.say("device", stale)
    assert (await api.states())[row["serial"]] == "await_flash_default"
    await worker.say("device", {**stale, "fence": 1})
    assert (await api.states())[row["serial"]] == "available"


async def test_a_broken_device_is_shown_and_not_offered(api, worker):
    await worker.report("A1", state="broken", health="broken", reason="no answer to the default firmware")
    assert await api.amount() == 3
    status, body = await api.post("/reserveserials", serials=["A1"], name="bob", kind="pulsecount", args={})
    assert status == 409
    assert "no answer to the default firmware" in body["error"]["message"]


async def test_a_worker_that_came_back_without_a_device_has_lost_it(api, control, worker, listeners):
    bob = await listeners(control.url, "bob")
    [row] = await api.reserve(1, name="bob")
    del worker.devices[row["serial"]]
    await worker.hello()
    await eventually(lambda: bob.count("failure", row["serial"]) == 1)
    await eventually(lambda: unknown(api, row["serial"]))


async def test_a_restarted_worker_may_find_its_devices_one_by_one(start, workers, listeners, apis):
    control = await start(return_s=0.3)
    worker = await workers(control.url)
    api = apis(control.url)
    bob = await listeners(control.url, "bob")
    rows = await api.reserve(2, name="bob")
    await worker.hello(boot="2", devices=[])
    await worker.report(rows[0]["serial"])
    await eventually(lambda: bob.count("failure", rows[1]["serial"]) == 1)
    assert bob.count("failure", rows[0]["serial"]) == 0
    assert [row["serial"] for row in (await api.get("/api/fleet/reservations"))[1]] == [rows[0]["serial"]]


async def test_two_workers_under_one_name_are_kept_apart(api, control, worker, workers):
    other = await workers(control.url, "bench", ("Z1",), url="http://127.0.0.1:10")
    assert "a name of its own" in other.hello_answer["error"]["message"]
    # Both may be told to advertise one address, say that of a router.
    other = await workers(control.url, "bench", ("Z1",), boot="2")
    assert "a name of its own" in other.hello_answer["error"]["message"]
    assert await api.amount() == 4
    # It is the same one, restarted: the process before it was not heard again, though its line seems to stand.
    control.control.lines.open["bench"].heard_at -= 2 * control.control.lines.beat_s
    assert (await other.hello())["ok"]
    assert (await worker.say("beat", {}))["error"]["message"]


async def test_a_device_is_at_one_worker_and_may_be_carried_to_another(api, control, worker, workers):
    other = await workers(control.url, "other", ("A1",))
    assert other.hello_answer["ok"]
    rows = {row["serial"]: row["worker"] for row in (await api.get("/api/fleet/devices"))[1]}
    assert rows["A1"] == "bench"
    await worker.say("gone", {"serial": "A1"})
    await other.report("A1")
    rows = {row["serial"]: row["worker"] for row in (await api.get("/api/fleet/devices"))[1]}
    assert rows["A1"] == "other"


async def test_a_worker_cannot_speak_for_anothers_devices_and_leases(api, control, worker, workers):
    other = await workers(control.url, "other", ("Z1",))
    [row] = (await api.post("/reserveserials", serials=["A1"], name="bob", kind="pulsecount", args={}))[1]
    [lease] = worker.leases
    for event, argument in (
        ("gone", {"serial": "A1"}),
        ("gone", {"serial": "A2"}),
        ("failed", {"lease": lease, "serial": "A1", "reason": "because"}),
        ("presence", {"lease": lease, "sockets": 5}),
    ):
        assert await other.say(event, argument) == {"ok": True}  # about what it does not have: nothing to do
    answer = await other.say("device", other.device("A1"))
    assert "A1 is at worker bench" in answer["error"]["message"]
    answer = await other.hello(name="bench")
    assert "not the name of the hand-shake" in answer["error"]["message"]
    answer = await other.hello(devices=[other.device("Z1"), other.device("A1"), other.device("A2")])
    assert answer["leases"] == []
    states = {r["serial"]: (r["worker"], r["state"]) for r in (await api.get("/devices", all=True))[1]}
    assert states["A1"] == ("bench", "reserved")
    assert states["A2"] == ("bench", "available")
    [holding] = control.control.index.holdings.values()
    assert (holding.sockets, holding.lease.fences) == (0, {"A1": row["fence"]})


async def test_a_deleted_device_of_a_dead_worker_leaves_no_row(api, worker):
    await worker.close()
    await eventually(lambda: is_state(api, "dead"))
    assert await api.get("/delete", serials=["A1", "A2"]) == (200, ["A1", "A2"])
    assert sorted(await api.states()) == ["A3", "A4"]
    assert await state_of(api) == "dead"
    await api.get("/delete", serials=["A3", "A4"])
    assert (await api.get("/api/fleet/workers"))[1] == []  # nothing is left of it to look at


async def test_a_forgotten_worker_may_come_back(start, workers, apis):
    control = await start()
    api = apis(control.url)
    worker = await workers(control.url)
    await worker.close()
    await eventually(lambda: is_state(api, "dead"))
    await api.get("/delete", serials=["A1", "A2", "A3", "A4"])
    await control.stop()
    control = await start()
    api = apis(control.url)
    assert (await api.get("/api/fleet/workers"))[1] == []
    await workers(control.url)
    assert await api.amount() == 4


async def test_logs_of_workers_and_programs_are_written_one_line_each(api, worker, caplog):
    caplog.set_level("INFO", "fieldstation.fleet.remote")
    about = {"device": "A1", "lease": "l1", "level": "fake"}
    await worker.say("log", {"logs": [[20, "scanning", about], [20], "x", [40, "a\nforged line"], [20, "y", "z"]]})
    assert await api.get("/log", name="host_worker", logs=[[30, "hot %s"], ["x", "y"], [10, "quiet"]]) == (200, "")
    assert [record.getMessage() for record in caplog.records if record.name == "fieldstation.fleet.remote"] == [
        "[bench@127.0.0.1] scanning",
        "[bench@127.0.0.1] a\\nforged line",
        "[host_worker@127.0.0.1] hot %s",
    ]
    [first] = [record for record in caplog.records if "scanning" in record.getMessage()]
    assert first.fields == {"device": "A1", "lease": "l1"}  # and nothing that could pass for ours


async def test_fences_never_go_back_although_the_database_was_older(api, worker):
    await worker.report("A1", fence=41)
    _, [row] = await api.post("/reserveserials", serials=["A1"], name="bob", kind="pulsecount", args={})
    assert row["fence"] == 42
