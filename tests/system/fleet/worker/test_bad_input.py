"""What is wrong is refused with the field's name, and nothing else changes."""

import json

import aiohttp
import msgpack
import pytest
from socketio.exceptions import ConnectionError as RefusedError

from fieldstation.fleet.sim import answer
from fieldstation.testing import eventually

pytestmark = [pytest.mark.timeout(40), pytest.mark.asyncio(loop_scope="module")]

A, B = "1111111111111111", "2222222222222222"


async def still_works(holder):
    await holder.evaluate(A, 50)
    await eventually(lambda: "50" in holder.results(A))
    assert holder.results(A)["50"] == str(answer(holder.bitstream(50), A))


GOOD = {"serial": A, "event": "evaluate", "contents": {"files": {}, "batch_id": "b"}}


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"\xc1garbage", "request"),
        (b"", "request"),
        ("{", "request"),
        ("[1]", "request"),
        (7, "request"),
        (None, "request"),
        ({**GOOD, "serial": 5}, "serial"),
        ({**GOOD, "serial": []}, "serial"),
        ({**GOOD, "serial": [A, 5]}, "serial"),
        ({**GOOD, "event": None}, "event"),
        ({**GOOD, "contents": [1]}, "contents"),
        ({**GOOD, "event": "fly"}, "event"),
        ({**GOOD, "contents": {"files": {}}}, "contents.batch_id"),
        ({**GOOD, "contents": {"files": {}, "batch_id": "b"}}, "contents.files"),
        ({**GOOD, "contents": {"files": [], "batch_id": "b"}}, "contents.files"),
        ({**GOOD, "contents": {"files": {"1": 5}, "batch_id": "b"}}, "contents.files"),
        ({**GOOD, "contents": {"files": {"": b"x" * 104_090}, "batch_id": "b"}}, "contents.files"),
        ({**GOOD, "contents": {"files": {"1": b"x" * 104_089}, "batch_id": "b"}}, "contents.files"),
        ({**GOOD, "contents": {"files": {"1": b"x" * 104_091}, "batch_id": "b"}}, "contents.files"),
        ({**GOOD, "contents": {"files": {"1": b"x"}, "batch_id": 9}}, "contents.batch_id"),
        ({**GOOD, "contents": {"files": {"1": b"x"}, "batch_id": True}}, "contents.batch_id"),
    ],
)
async def test_a_malformed_request_is_refused_and_names_the_field(fleet, data, field):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        told = await holder.call("request", msgpack.packb(data) if isinstance(data, dict) else data)
        assert told["error"]["field"] == field
        assert field in told["error"]["message"]
        assert (await holder.until("refused"))["field"] == field
        await still_works(holder)


async def test_a_bitstream_of_the_wrong_size_is_also_ended_for_clients_that_hear_no_refusal(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token, ours=False) as holder:
        await holder.until("initialized", A)
        contents = {"files": {"short": b"x", "good": holder.bitstream(5)}, "batch_id": "b"}
        await holder.sio.emit("request", msgpack.packb({**GOOD, "contents": contents}))
        assert await holder.until_results(A, 2) == {"short": None, "good": None}
        assert "1 bytes" in holder.reasons()["short"]


async def test_an_84_mb_message_is_refused_and_the_socket_lives(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        told = await holder.call("request", bytes(84_000_000))
        assert told["error"]["field"] == "request"
        assert "84000000" in told["error"]["message"]
        await still_works(holder)


async def test_a_message_of_83_mb_with_many_files_is_accepted(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        told = await holder.evaluate(A, *range(790))
        assert told == {"ok": True, "refused": {}}
        await holder.until_results(A, 790, 30)


@pytest.mark.parametrize("auth", [None, {}, {"client_id": ""}, {"client_id": 5}, {"client_id": None}, "me"])
async def test_a_socket_without_client_id_is_refused_with_that_reason(fleet, auth):
    holder = fleet.hold()
    told = []
    holder.sio.on("connect_error", told.append)
    with pytest.raises(RefusedError):
        await holder.sio.connect(fleet.worker.url, auth=auth, transports=["websocket"])
    assert "client_id" in str(told)


async def test_too_many_sockets_of_one_client_are_refused_and_others_get_in(fleet):
    _, token = await fleet.control.assign(A)
    open_sockets, refused = [], 0
    for _ in range(70):
        holder = fleet.hold(client="greedy")
        try:
            await holder.__aenter__()
            open_sockets.append(holder)
        except RefusedError:
            refused += 1
    assert (len(open_sockets), refused) == (64, 6)
    async with fleet.hold(token) as holder:
        await still_works(holder)
    for holder in open_sockets:
        await holder.sio.disconnect()


async def test_guessing_leases_is_limited(fleet):
    greedy, told = fleet.hold(*(f"fsl_{n}" for n in range(1001))), []
    greedy.sio.on("connect_error", told.append)
    with pytest.raises(RefusedError):
        await greedy.__aenter__()
    assert "presents at most 1000" in str(told)
    async with fleet.hold(*(f"fsl_{n}" for n in range(1000))) as guesser:
        assert "too many" in (await guesser.call("present", "fsl_more"))["error"]["message"]


async def test_arguments_of_a_kind_are_checked_and_the_device_comes_back(fleet):
    _, token = await fleet.control.assign(A, flush_interval_seconds="soon")
    async with fleet.hold(token) as holder:
        failure = await holder.until("failure", A)
        assert "flush_interval_seconds" in failure["reason"]
    await fleet.control.available(A)
    assert fleet.control.devices[A]["health"] == "ok"


async def test_a_device_that_was_given_up_before_control_ended_its_lease_is_reported_again_at_the_end(fleet):
    # While control writes the end down, it takes what is reported for a reserved device's, and would wait for ever.
    before = len(fleet.control.said("device"))
    lease, _ = await fleet.control.assign(A, flush_interval_seconds="soon")
    await eventually(lambda: fleet.control.said("failed"))

    def states():
        return [report["state"] for report in fleet.control.said("device")[before:] if report["serial"] == A]

    # What was reported before it failed says "available" too.
    await eventually(lambda: "flashing_default" in states() and states()[-1] == "available", 60)
    reports = len(fleet.control.said("device"))
    await fleet.control.release(lease)
    await eventually(lambda: len(fleet.control.said("device")) > reports)
    assert fleet.control.devices[A]["state"] == "available"


# The line


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": 5}, "id"),
        ({"token_hash": None}, "token_hash"),
        ({"fences": [A]}, "fences"),
        ({"fences": {A: True}}, "fences"),
        ({"fences": {A: "1"}}, "fences"),
        ({"for_s": "long"}, "for_s"),
        ({"for_s": True}, "for_s"),
        ({"kind": 7}, "kind"),
    ],
)
async def test_a_malformed_assign_is_refused_and_names_the_field(fleet, change, field):
    lease, _ = fleet.control.lease(A)
    told = await fleet.control.call("assign", {**lease, **change})
    assert told["error"]["field"] == field
    assert fleet.control.devices[A]["state"] == "available"


async def test_an_assign_that_cannot_be_kept_says_why(fleet):
    lease, _ = fleet.control.lease(A, "NOBODY", kind="pulsecount")
    told = await fleet.control.call("assign", lease)
    assert told["refused"] == {"NOBODY": "it is not plugged into this worker"}
    fleet.control.leases[lease["id"]] = lease
    unknown, _ = fleet.control.lease(B, kind="telepathy")
    assert "telepathy" in (await fleet.control.call("assign", unknown))["error"]["message"]


async def test_commands_about_nothing_are_refused(fleet):
    for event, body in [
        ("extend", {"lease": "none", "for_s": 5}),
        ("reboot", {"serial": "NOBODY"}),
        ("delete", {"serial": "NOBODY"}),
        ("extend", {}),
        ("assign", []),
    ]:
        assert "error" in await fleet.control.call(event, body)


# The documented endpoints


async def ask(fleet, method, path, arguments=None, **more):
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, fleet.worker.url + path, json=arguments, **more) as response,
    ):
        text = await response.text()
        return response.status, json.loads(text) if text else None


async def test_the_heartbeat_answers(fleet):
    assert await ask(fleet, "GET", "/heartbeat") == (200, None)


async def test_reserve_on_the_worker_gives_a_lease_that_works_there(fleet):
    status, row = await ask(fleet, "GET", "/reserve", {"serial": B, "kind": "pulsecount", "args": {}})
    assert status == 200
    async with fleet.hold(row["lease"]) as holder:
        await holder.evaluate(B, 1)
        await holder.until_results(B, 1)
        assert (await ask(fleet, "POST", "/reserve", {"serial": B, "kind": "pulsecount", "args": {}}))[0] == 409
    assert (await ask(fleet, "GET", "/reboot", {"serial": B}))[0] == 200
    assert (await ask(fleet, "GET", "/unreserve", {"serial": B}))[0] == 200
    await fleet.control.available(B)


@pytest.mark.parametrize(
    ("path", "arguments", "got", "posted", "field"),
    [
        ("/reserve", {"serial": B}, 400, 400, "kind"),
        ("/reserve", {"serial": 5, "kind": "pulsecount"}, 400, 400, "serial"),
        ("/reserve", {"serial": B, "kind": "telepathy"}, 500, 404, None),
        ("/reserve", {"serial": "NOBODY", "kind": "pulsecount"}, 500, 404, None),
        ("/reboot", {}, 400, 400, "serial"),
        ("/reboot", {"serial": "NOBODY"}, 500, 404, None),
        ("/delete", {"serial": None}, 400, 400, "serial"),
        ("/delete", [], 400, 400, "json"),
    ],
)
async def test_endpoints_refuse_what_is_wrong(fleet, path, arguments, got, posted, field):
    for method, status in (("GET", got), ("POST", posted)):
        found, body = await ask(fleet, method, path, arguments)
        assert (found, body["error"].get("field")) == (status, field)
    assert fleet.control.devices[B]["state"] == "available"


async def test_a_page_of_another_site_cannot_use_the_endpoints(fleet):
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        assert (await ask(fleet, "GET", "/delete", {"serial": A}, headers=headers))[0] == 403
    assert fleet.control.devices[A]["state"] == "available"


async def test_a_lease_token_opens_none_of_the_endpoints(fleet):
    _, token = await fleet.control.assign(A)
    for lease in (token, "fsl_made_up"):
        headers = {"Authorization": aiohttp.encode_basic_auth("lease", lease)}
        assert (await ask(fleet, "GET", "/delete", {"serial": A}, headers=headers))[0] == 401
        assert (await ask(fleet, "GET", "/metrics", headers=headers))[0] == 401
        assert (await ask(fleet, "GET", "/health", headers=headers))[1] == {"ok": True}
