"""Devices out of service and devices' histories, in control and its database."""

from dataclasses import replace

import pytest

from fieldstation.fleet.model import WorkerState

pytestmark = pytest.mark.timeout(90)
# What a database has no part in is tested with one of them.
ON_ONE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


async def health(api, serial):
    rows = (await api.get("/api/fleet/devices"))[1]
    return {row["serial"]: (row["health"], row["reason"]) for row in rows}.get(serial)


async def steps(api, serial, **more):
    query = "&".join(f"{key}={value}" for key, value in {"serial": serial, **more}.items())
    status, rows = await api.ask("GET", f"/api/fleet/history?{query}")
    assert status == 200, rows
    return [(row["step"], row["detail"], row["user"]) for row in rows]


async def switch(api, serial, on, reason=""):
    return await api.post("/api/fleet/maintenance", serial=serial, on=on, reason=reason)


def services(worker):
    return [argument for event, argument in worker.calls if event == "service"]


async def test_maintenance_outlives_control_the_cable_and_the_worker_and_ends_by_an_operators_word(
    start, apis, workers
):
    first = await start()
    api = apis(first.url)
    worker = await workers(first.url)
    assert await switch(api, "A1", True, "new cable") == (
        200,
        {"serial": "A1", "health": "maintenance", "reason": "new cable", "client": None},
    )
    assert services(worker) == [{"serial": "A1", "health": "maintenance", "reason": "new cable"}]
    assert await api.amount() == 3
    # Whatever the worker says of its health meanwhile, it is not offered.
    await worker.report("A1", health="ok")
    assert await health(api, "A1") == ("maintenance", "new cable")
    await worker.say("gone", {"serial": "A1"})
    await worker.report("A1", state="available")
    assert await api.amount() == 3
    status, told = await api.post("/reserveserials", serials=["A1"], name="bob", kind="pulsecount", args={})
    assert status == 409
    assert "out of service, maintenance (new cable)" in told["error"]["message"]
    status, told = await api.post("/reboot", serials=["A1"])
    assert status == 409
    assert "maintenance A1 off" in told["error"]["message"]
    await worker.close()
    await first.stop()

    second = await start()
    api = apis(second.url)
    worker = await workers(second.url)
    assert worker.hello_answer["out_of_service"] == {"A1": {"health": "maintenance", "reason": "new cable"}}
    assert await api.amount() == 3
    assert (await switch(api, "A1", False))[1]["health"] == "degraded"
    assert services(worker) == [{"serial": "A1", "health": None, "reason": ""}]
    await worker.report("A1")
    assert await api.amount() == 4
    assert (await worker.hello())["out_of_service"] == {}
    assert await steps(api, "A1") == [("maintenance off", "", "local"), ("maintenance on", "new cable", "local")]
    assert await steps(api, "A1", limit=1) == [("maintenance off", "", "local")]


@ON_ONE
async def test_a_quarantine_that_a_worker_reports_stays_until_somebody_puts_the_device_back(api, worker):
    await worker.report("A1", state="broken", health="quarantined", reason="smoke")
    assert (await worker.hello())["out_of_service"] == {"A1": {"health": "quarantined", "reason": "smoke"}}
    # A restarted worker knows nothing of it and finds the board well.
    await worker.report("A1", state="available", health="ok", reason="")
    assert await health(api, "A1") == ("quarantined", "smoke")
    assert await api.amount() == 3
    assert (await switch(api, "A1", False))[0] == 200
    # Sent before the worker heard of it.
    await worker.report("A1", state="broken", health="quarantined", reason="smoke")
    assert (await worker.hello(devices=[worker.device("A1")]))["out_of_service"] == {}
    await worker.report("A1", state="available", health="ok")
    await worker.report("A1", state="broken", health="quarantined", reason="again")
    assert await health(api, "A1") == ("quarantined", "again")


@ON_ONE
async def test_a_quarantine_is_not_lifted_behind_the_back_of_a_worker_that_is_away(api, control, worker):
    await worker.report("A1", state="broken", health="quarantined", reason="smoke")
    for state in (WorkerState.UNREACHABLE, WorkerState.DEAD):
        bench = control.control.index.workers["bench"]
        control.control.record.set_worker(replace(bench, state=state))
        status, told = await switch(api, "A1", False)
        assert (status, told["error"]["code"]) == (503, "worker_unreachable")
        assert await health(api, "A1") == ("quarantined", "smoke")


@ON_ONE
async def test_a_hello_that_still_says_quarantined_is_believed(api, worker):
    await worker.report("A1", state="broken", health="quarantined", reason="smoke")
    assert (await switch(api, "A1", False))[0] == 200
    # The worker was killed before it wrote down that the device was put back.
    ill = worker.device("A1", state="broken", health="quarantined", reason="smoke")
    assert (await worker.hello(devices=[ill]))["out_of_service"] == {"A1": {"health": "quarantined", "reason": "smoke"}}
    assert await health(api, "A1") == ("quarantined", "smoke")
    assert (await switch(api, "A1", False))[0] == 200


@ON_ONE
async def test_a_holder_keeps_a_device_that_goes_into_maintenance(api, worker):
    [row] = await api.reserve(1, name="bob")
    assert (await switch(api, row["serial"], True, "later"))[1]["client"] == "bob"
    assert await api.get("/extend", name="bob", serials=[row["serial"]]) == (200, [row["serial"]])
    assert await api.get("/end", name="bob", serials=[row["serial"]]) == (200, [row["serial"]])
    await worker.report(row["serial"], state="available")
    assert await api.amount() == 3


async def test_a_history_keeps_only_its_newest_lines_and_pages_through_them(start, apis, workers):
    served = await start(history_kept=3)
    api = apis(served.url)
    worker = await workers(served.url)
    for number in range(5):
        step = {"serial": "A1", "step": "reflash", "detail": f"{number}\x00", "at": "2026-01-02T03:04:05+00:00"}
        assert await worker.say("step", step) == {"ok": True}
        await api.ask("GET", "/api/fleet/history?serial=A1")  # which writes what has piled up
    await worker.say("step", {"serial": "A2", "step": "broken", "at": "yesterday-ish"})
    assert [detail for _, detail, _ in await steps(api, "A1")] == ["4", "3", "2"]
    rows = (await api.ask("GET", "/api/fleet/history?serial=A1&limit=1"))[1]
    assert (rows[0]["at"], rows[0]["worker"]) == ("2026-01-02T03:04:05+00:00", "bench")
    assert [detail for _, detail, _ in await steps(api, "A1", before=rows[0]["id"])] == ["3", "2"]
    assert await steps(api, "A3") == []


BAD = (
    ({"serial": "A1", "on": True}, 400, "reason"),
    ({"serial": "A1", "on": True, "reason": "  "}, 400, "reason"),
    ({"serial": "nowhere", "on": True, "reason": "x"}, 404, "serial"),
    ({"serial": "nowhere", "on": False}, 404, "serial"),
    ({"serial": "A1", "on": "yes", "reason": "x"}, 400, "on"),
    ({"on": True, "reason": "x"}, 400, "serial"),
)


@ON_ONE
async def test_bad_input_is_named_and_changes_nothing(api, worker):
    for arguments, status, field in BAD:
        answer = await api.post("/api/fleet/maintenance", **arguments)
        assert (answer[0], answer[1]["error"]["field"]) == (status, field), arguments
    assert await api.amount() == 4
    assert await steps(api, "A1") == []
    assert (await api.ask("GET", "/api/fleet/history"))[1]["error"]["field"] == "serial"
    assert (await api.ask("GET", "/api/fleet/history?serial=nowhere"))[0] == 404
    assert (await api.ask("GET", "/api/fleet/history?serial=A1&limit=0"))[1]["error"]["field"] == "limit"
