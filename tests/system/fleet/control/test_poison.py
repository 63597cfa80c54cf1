"""Values that a database cannot keep: whoever says one is refused, or it is cut, and everybody else goes on."""

import pytest

from fieldstation.testing import eventually

pytestmark = pytest.mark.timeout(120)

NUL = "a\x00b"
HUGE = 2**64 - 1  # no more: beside the panel Socket.IO speaks with a JSON encoder that knows 64 bits
FAR = "9999-12-31T23:59:59-23:00"
DEVICE = {"serial": "Z1", "driver": "fake", "state": "available", "kinds": ["other"]}
STEP = {"serial": "A1", "step": "reflash"}

REPORTS = [
    *(("device", {**DEVICE, "fence": fence}) for fence in (HUGE, 2**63 - 1)),
    *(("device", {**DEVICE, key: NUL}) for key in ("driver", "reason")),
    ("device", {**DEVICE, "kinds": [NUL]}),
    ("device", {**DEVICE, "labels": {NUL: NUL}}),
    *(("step", {**STEP, key: NUL}) for key in ("step", "detail")),
    *(("step", {**STEP, "at": at}) for at in (FAR, "0001-01-01T00:00:00+23:00")),
    ("presence", {"lease": NUL, "sockets": HUGE}),
    ("log", {"logs": [[40, NUL], [HUGE, "x"], [40, "x", {"lease": NUL}]]}),
]


async def test_what_a_worker_reports_never_keeps_others_from_reserving(api, control, worker, workers):
    other = await workers(control.url, "other", ("Z1",), kinds=("other",))
    for event, body in REPORTS:
        await other.say(event, body)
        await written(api, control, (event, body))
    hellos = ({"version": NUL}, {"boot": NUL}, {"kinds": [NUL]}, {"leases": [NUL]})
    for more in hellos:
        await other.hello(**more)
        await written(api, control, more)


async def test_nor_does_what_a_worker_says_of_a_device_that_failed(api, control, worker):
    [row] = await api.reserve(1, name="eve")
    [lease] = worker.leases
    await worker.say("failed", {"lease": lease, "serial": row["serial"], "reason": NUL})
    await eventually(lambda: released(api))
    await written(api, control, "failed")


async def test_nor_does_what_a_person_asks_for(api, control, worker):
    want = {"amount": 1, "name": "eve", "kind": "pulsecount", "args": {}}
    for path, arguments in (
        ("/reserve", {**want, "ticket": NUL, "wait_s": 0}),
        ("/reserve", {**want, "args": {"x": NUL}}),
        ("/reserve", {**want, "labels": {NUL: NUL}}),
        ("/reserve", {**want, "kind": NUL}),
        ("/reserveserials", {"serials": [NUL], "name": "eve", "kind": "pulsecount", "args": {}}),
        ("/end", {"name": "eve", "serials": [NUL]}),
        ("/api/fleet/maintenance", {"serial": "A1", "on": True, "reason": NUL}),
        ("/api/fleet/maintenance", {"serial": NUL, "on": True, "reason": "x"}),
    ):
        status, body = await api.post(path, **arguments)
        assert status in (200, 400, 404, 409), (path, arguments, body)
        await written(api, control, (path, arguments))
        await api.post("/endall", name="eve")
    await api.post("/api/fleet/maintenance", serial="A1", on=False)


async def released(api):
    return (await api.get("/api/fleet/reservations"))[1] == []


async def written(api, control, after):
    """Everything that was said is on disk, and a reservation is granted."""
    await control.control.record.flush()
    status, rows = await api.post("/reserveserials", serials=["A4"], name="bob", kind="pulsecount", args={})
    assert status == 200, (after, rows)
    assert (await api.post("/endall", name="bob"))[0] == 200
