"""Bad input: one clear sentence that names the field, and nothing else changes."""

from __future__ import annotations

import asyncio
import json

import pytest

pytestmark = pytest.mark.timeout(90)

GOOD = {"amount": 1, "name": "bob", "kind": "pulsecount", "args": {}}
GOOD_SERIALS = {"serials": ["A1"], "name": "bob", "kind": "pulsecount", "args": {}}


def without(key: str) -> dict:
    return {name: value for name, value in GOOD.items() if name != key}


WRONG = [
    ("/reserve", {**GOOD, "amount": 0}, "amount", 400),
    ("/reserve", {**GOOD, "amount": -1}, "amount", 400),
    ("/reserve", {**GOOD, "amount": True}, "amount", 400),
    ("/reserve", {**GOOD, "amount": "1"}, "amount", 400),
    ("/reserve", {**GOOD, "amount": 1.5}, "amount", 400),
    ("/reserve", {**GOOD, "amount": None}, "amount", 400),
    ("/reserve", {**GOOD, "amount": 10**15}, "amount", 409),
    ("/reserve", {**GOOD, "amount": 5}, "amount", 409),
    ("/reserve", without("amount"), "amount", 400),
    ("/reserve", without("name"), "name", 400),
    ("/reserve", without("kind"), "kind", 400),
    ("/reserve", without("args"), "args", 400),
    ("/reserve", {**GOOD, "name": ""}, "name", 400),
    ("/reserve", {**GOOD, "name": 7}, "name", 400),
    ("/reserve", {**GOOD, "name": "nul\x00"}, "name", 400),
    ("/reserve", {**GOOD, "name": "x" * 201}, "name", 400),
    ("/reserve", {**GOOD, "name": "\ud800"}, "name", 400),
    ("/reserve", {**GOOD, "kind": "telepathy"}, "kind", 404),
    ("/reserve", {**GOOD, "kind": None}, "kind", 400),
    ("/reserve", {**GOOD, "args": []}, "args", 400),
    ("/reserve", {**GOOD, "args": {"x": "\ud800"}}, "args", 400),
    ("/reserve", {**GOOD, "wait_s": "long"}, "wait_s", 400),
    ("/reserve", {**GOOD, "wait_s": -1}, "wait_s", 400),
    ("/reserve", {**GOOD, "priority": 101}, "priority", 400),
    ("/reserve", {**GOOD, "ticket": ""}, "ticket", 400),
    ("/reserve", {**GOOD, "labels": {"a": 1}}, "labels", 400),
    ("/reserveserials", {**GOOD_SERIALS, "serials": "A1"}, "serials", 400),
    ("/reserveserials", {**GOOD_SERIALS, "serials": [1]}, "serials", 400),
    ("/reserveserials", {**GOOD_SERIALS, "serials": []}, "serials", 400),
    ("/reserveserials", {**GOOD_SERIALS, "serials": ["A1", "Z9"]}, "serials", 404),
    ("/reserveserials", {**GOOD_SERIALS, "serials": ["A1", "A1", "nul\x00"]}, "serials", 404),
    ("/extend", {"name": "bob"}, "serials", 400),
    ("/extend", {"serials": ["A1"]}, "name", 400),
    ("/extendall", {}, "name", 400),
    ("/end", {"name": "bob", "serials": None}, "serials", 400),
    ("/end", {"name": None, "serials": ["A1"]}, "name", 400),
    ("/endall", {"name": 1}, "name", 400),
    ("/reboot", {"serials": {"A1": 1}}, "serials", 400),
    ("/reboot", {"serials": ["Z9"]}, "serials", 404),
    ("/delete", {}, "serials", 400),
    ("/delete", {"serials": ["Z9"]}, "serials", 404),
    ("/log", {"name": "x"}, "logs", 400),
    ("/log", {"name": "x", "logs": "text"}, "logs", 400),
    ("/devices", {"all": "yes"}, "all", 400),
]


async def everything(api) -> tuple:
    return (
        (await api.get("/api/fleet/devices"))[1],
        (await api.get("/api/fleet/reservations"))[1],
        (await api.get("/api/fleet/events"))[1],
    )


async def test_each_wrong_argument_is_named_and_changes_nothing(api, worker):
    before = await everything(api)
    for path, arguments, field, status in WRONG:
        got, body = await api.post(path, **arguments)
        assert (got, body["error"].get("field")) == (status, field), (path, arguments, body)
        assert body["error"]["message"]
        got, body = await api.get(path, **arguments)
        if arguments.get("serials") == []:
            continue  # documented: nothing asked, nothing given
        assert got in (400, 500), (path, arguments, body)
        assert body["error"].get("field") == field
    assert await everything(api) == before
    assert worker.calls == []


BODIES = [
    b"",
    b"{",
    b"[]",
    b'"text"',
    b"null",
    b"\xff\xfe",
    b'{"amount": NaN, "name": "b", "kind": "pulsecount", "args": {}}',
    b'{"amount": 1, "name": "b", "kind": "pulsecount", "args": {"far": 18446744073709551616}}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"{" + b'"name": "x",' * 10,
]


async def test_malformed_json_is_refused_for_every_endpoint(api, worker):
    before = await everything(api)
    headers = {"content-type": "application/json"}
    for path in (
        "/reserve",
        "/reserveserials",
        "/extend",
        "/extendall",
        "/end",
        "/endall",
        "/reboot",
        "/delete",
        "/log",
    ):
        for method in ("GET", "POST"):
            for body in BODIES:
                async with api.session.request(method, api.url + path, data=body, headers=headers) as response:
                    assert response.status == 400, (method, path, body[:20])
                    assert json.loads(await response.text())["error"]["field"] == "json"
            status, answer = await api.ask(method, path + "?json={bad")
            assert (status, answer["error"]["field"]) == (400, "json")
    assert await everything(api) == before


async def test_a_body_without_end_is_cut_off(api, worker):
    async def endless():
        for _ in range(200):
            yield b"x" * 100_000

    headers = {"content-type": "application/json"}
    async with api.session.post(api.url + "/reserve", data=endless(), headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["field"] == "body"


async def test_unknown_paths_and_methods_are_answered_in_the_same_shape(api):
    assert (await api.ask("GET", "/nothing"))[1]["error"]["message"] == "GET /nothing: Not Found"
    status, body = await api.ask("DELETE", "/available")
    assert (status, body["error"]["code"]) == (405, "http")


async def test_other_peoples_devices_are_left_alone(api, worker):
    [row] = await api.reserve(1, name="eve")
    assert await api.get("/end", name="bob", serials=[row["serial"]]) == (200, [])
    status, body = await api.post("/extend", name="bob", serials=[row["serial"]])
    assert (status, body["error"]["code"]) == (404, "not_held")
    assert [held["client"] for held in (await api.get("/api/fleet/reservations"))[1]] == ["eve"]


async def test_history_takes_only_sensible_numbers(api):
    for query, field in (("limit=0", "limit"), ("limit=x", "limit"), ("limit=1001", "limit"), ("before=-1", "before")):
        status, body = await api.ask("GET", f"/api/fleet/events?{query}")
        assert (status, body["error"]["field"]) == (400, field)


async def test_raw_garbage_on_the_port_does_not_disturb_others(api, control, worker):
    for garbage in (b"\x00\xff" * 2000, b"GET / HTTP/9.9\r\n\r\n", b"GET /available HTTP/1.1\r\nHost: 127.0.0.1\r\n"):
        _, writer = await asyncio.open_connection("127.0.0.1", int(control.url.rpartition(":")[2]))
        writer.write(garbage)
        await writer.drain()
        assert await api.amount() == 4
        writer.close()
        await writer.wait_closed()
