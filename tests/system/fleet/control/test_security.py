"""Who may do what."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import unquote

import aiohttp
import pytest
import socketio

from fieldstation.core.errors import InsecureBindError
from fieldstation.core.security import Role, client_tls
from fieldstation.fleet.store import Store
from fieldstation.testing import Authority, eventually

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def tokens(database) -> dict[str, str]:
    """A token for one user of each role, and two users."""
    store = Store(database)
    store.open()
    names = {"vera": Role.VIEWER, "bob": Role.USER, "eve": Role.USER, "olga": Role.OPERATOR, "ada": Role.ADMIN}
    made = {name: store.add_token(name, role) for name, role in names.items()}
    store.close()
    return made


@pytest.fixture
async def guarded(tokens, start, workers):
    """A control server on which everybody needs a token, with a worker."""
    control = await start(require_tokens=True)
    worker = await workers(control.url, token=tokens["olga"])
    assert worker.hello_answer["ok"]
    return control


async def ask(url: str, method: str, path: str, token: str | None, arguments: object = None, **headers: str):
    auth = {"authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url + path, json=arguments, headers={**auth, **headers}) as response,
    ):
        return response.status, await response.json(content_type=None), response.headers


WANT = {"amount": 1, "name": "experiment", "kind": "pulsecount", "args": {}}


async def test_without_a_token_nothing_is_told(guarded):
    for path in ("/", "/available", "/devices", "/docs", "/openapi.json", "/style.css", "/api/fleet/events"):
        async with aiohttp.ClientSession() as session, session.get(guarded.url + path) as response:
            assert response.status == 401, path
            assert response.headers["www-authenticate"].startswith("Basic ")
            assert "needs a token" in (await response.json())["error"]["message"]
    assert (await ask(guarded.url, "GET", "/available", "fst_wrong"))[0] == 401


async def test_a_token_in_the_address_arrives_as_the_password(guarded, tokens):
    basic = base64.b64encode(f"bob:{tokens['bob']}".encode()).decode()
    status, body, _ = await ask(guarded.url, "GET", "/available", None, authorization=f"Basic {basic}")
    assert (status, body) == (200, {"amount": 4})
    for wrong in ("Basic !!!", "Basic " + base64.b64encode(b"bob:").decode(), "Digest x", "nonsense"):
        assert (await ask(guarded.url, "GET", "/available", None, authorization=wrong))[0] == 401


async def test_each_role_may_do_what_it_may(guarded, tokens):
    for name, path, arguments, allowed in (
        ("vera", "/available", {}, True),
        ("vera", "/reserve", WANT, False),
        ("vera", "/endall", {"name": "experiment"}, False),
        ("vera", "/log", {"name": "x", "logs": []}, False),
        ("bob", "/reserve", WANT, True),
        ("bob", "/delete", {"serials": ["A4"]}, False),
        ("bob", "/reboot", {"serials": ["A4"]}, False),
        ("bob", "/clear-workers", {}, False),
        ("olga", "/reboot", {"serials": ["A4"]}, True),
        ("olga", "/delete", {"serials": ["A4"]}, True),
        ("ada", "/clear-workers", {}, True),
    ):
        for method in ("GET", "POST"):
            status, body, _ = await ask(guarded.url, method, path, tokens[name], arguments)
            assert (status == 200) is allowed, (name, path, body)
            if not allowed:
                assert status == 403
                assert "needs the role" in body["error"]["message"]


async def test_on_the_page_each_may_press_what_they_may(guarded, tokens):
    """Which buttons are offered, and what pressing End says."""
    _, [row], _ = await ask(guarded.url, "POST", "/reserve", tokens["bob"], WANT)
    serial = row["serial"]
    pressed = {}
    for name in ("vera", "eve", "bob"):
        headers = {"authorization": f"Bearer {tokens[name]}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            page = await (await session.get(guarded.url + "/")).text()
            assert "<td>experiment <small>bob</small></td>" in page
            offered = re.findall(rf'<button aria-label="(\w+) {serial}"', page)
            async with session.post(
                f"{guarded.url}/panel/end", data={"serial": serial}, allow_redirects=False
            ) as response:
                pressed[name] = offered, unquote(response.headers["location"].partition("note=")[2])
    assert pressed == {
        "vera": ([], "vera has the role viewer; ending reservations needs the role user."),
        "eve": ([], "eve has the role user; ending other people's reservations needs the role operator."),
        "bob": (["End", "Reboot"], f"The reservation of {serial} has ended."),
    }


async def test_a_client_name_is_no_credential(guarded, tokens):
    _, [row], _ = await ask(guarded.url, "POST", "/reserve", tokens["bob"], WANT)
    mine = {"name": "experiment", "serials": [row["serial"]]}
    assert (await ask(guarded.url, "POST", "/end", tokens["eve"], mine))[1] == []
    assert (await ask(guarded.url, "POST", "/endall", tokens["eve"], {"name": "experiment"}))[1] == []
    assert (await ask(guarded.url, "POST", "/extend", tokens["eve"], mine))[0] == 404
    assert (await ask(guarded.url, "POST", "/reboot", tokens["eve"], {"serials": [row["serial"]]}))[0] == 403
    assert (await ask(guarded.url, "POST", "/reboot", tokens["bob"], {"serials": [row["serial"]]}))[0] == 200
    # An administrator's own `endall` under the same name is not about other people's devices either.
    assert (await ask(guarded.url, "POST", "/endall", tokens["ada"], {"name": "experiment"}))[1] == []
    assert (await ask(guarded.url, "POST", "/end", tokens["olga"], mine))[1] == [row["serial"]]
    history = (await ask(guarded.url, "GET", "/api/fleet/events", tokens["vera"]))[1]
    assert next(entry["user"] for entry in history if entry["action"] == "end") == "olga"


async def test_events_go_to_the_user_not_to_the_name(guarded, tokens, listeners):
    bob = await listeners(guarded.url, "experiment", headers={"authorization": f"Bearer {tokens['bob']}"})
    eve = await listeners(guarded.url, "experiment", headers={"authorization": f"Bearer {tokens['eve']}"})
    await ask(guarded.url, "POST", "/reserve", tokens["bob"], WANT)
    await ask(guarded.url, "POST", "/endall", tokens["bob"], {"name": "experiment"})
    await eventually(lambda: bob.count("reservation end") == 1)
    await eventually(lambda: eve.amounts[-1:] == [4])
    assert eve.count("reservation end") == 0


async def shakes_hands(session, url: str, namespace: str, auth: dict, **headers: str) -> bool:
    """The hand-shake by long polling, packet by packet; the WebSocket's first packets are the same."""
    polling = f"{url}/socket.io/?EIO=4&transport=polling"
    async with session.get(polling, headers=headers) as response:
        assert response.status == 200
        sid = json.loads((await response.text())[1:])["sid"]
    where = "" if namespace == "/" else f"{namespace},"
    async with session.post(f"{polling}&sid={sid}", data=f"40{where}{json.dumps(auth)}", headers=headers) as response:
        assert response.status == 200
    async with session.get(f"{polling}&sid={sid}", headers=headers) as response:
        answer = (await response.text()).partition("\x1e")[0]
    assert answer[:2] in ("40", "44")  # connected, or refused
    return answer.startswith("40")


async def test_sockets_need_a_token_too(guarded, tokens):
    async with aiohttp.ClientSession() as session:

        async def gets_in(namespace: str, auth: dict, **headers: str) -> bool:
            return await shakes_hands(session, guarded.url, namespace, auth, **headers)

        bearer = {"authorization": f"Bearer {tokens['bob']}"}
        assert not await gets_in("/", {"client_id": "x"})
        assert not await gets_in("/", {"client_id": "x", "token": "fst_wrong"})
        assert await gets_in("/", {"client_id": "x", "token": tokens["vera"]})
        assert await gets_in("/", {"client_id": "x"}, **bearer)
        assert not await gets_in("/worker", {"worker": "w"})
        assert not await gets_in("/worker", {"worker": "w", "token": tokens["bob"]})
        assert not await gets_in("/worker", {"worker": "w"}, **bearer)
        assert not await gets_in("/worker", {"token": tokens["olga"]})
        assert await gets_in("/worker", {"worker": "w", "token": tokens["olga"]})


async def test_pages_of_others_are_refused(api, control, worker):
    path = '/endall?json={"name":"bob"}'
    [row] = await api.reserve(1)
    for headers in (
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        status, body, _ = await ask(control.url, "GET", path, None, **headers)
        assert status == 403, headers
        assert body["error"]["code"] == "forbidden"
    session = aiohttp.ClientSession()
    for transport in ("websocket", "polling"):
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=session)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await sio.connect(
                control.url,
                auth={"client_id": "x"},
                headers={"origin": "https://evil.example"},
                transports=[transport],
                wait_timeout=20,
            )
        await sio.disconnect()
    await session.close()
    assert (await api.states())[row["serial"]] == "reserved"
    assert (await ask(control.url, "GET", path, None, origin=control.url, **{"sec-fetch-site": "same-origin"}))[
        0
    ] == 200


async def test_no_answer_allows_other_origins(control):
    async with aiohttp.ClientSession() as session:
        for path in ("/available", "/socket.io/?EIO=4&transport=polling"):
            async with session.get(control.url + path) as response:
                assert "access-control-allow-origin" not in response.headers


async def test_other_addresses_need_tokens_or_plain_words(start, database):
    with pytest.raises(InsecureBindError, match="tokens create"):
        await start(host="0.0.0.0")
    control = await start(host="0.0.0.0", insecure=True)
    status, body, _ = await ask(control.url, "GET", "/available", None)
    assert (status, body) == (200, {"amount": 0})
    assert (await ask(control.url, "GET", "/available", None, host="evil.example"))[0] == 403
    await control.stop()
    store = Store(database)
    token = store.add_token("bob", Role.USER)
    store.close()
    control = await start(host="0.0.0.0")
    assert (await ask(control.url, "GET", "/available", None))[0] == 401
    assert (await ask(control.url, "GET", "/available", token))[0] == 200


async def test_tokens_come_and_go_while_control_runs(guarded, database, monkeypatch):
    store = Store(database)
    token = store.add_token("new", Role.USER)
    monkeypatch.setattr("fieldstation.fleet.control.control.MISS_S", 0.0)
    assert (await ask(guarded.url, "GET", "/available", token))[0] == 200
    assert store.revoke_tokens("new") == 1
    store.close()

    async def refused() -> bool:
        return (await ask(guarded.url, "GET", "/available", token))[0] == 401

    await eventually(refused)


async def test_no_token_is_ever_shown(guarded, tokens, database, caplog):
    caplog.set_level("DEBUG")
    _, [row], _ = await ask(guarded.url, "POST", "/reserve", tokens["bob"], WANT)
    seen = ""
    for path in ("/", "/api/fleet/devices", "/api/fleet/workers", "/api/fleet/reservations", "/api/fleet/events"):
        headers = {"authorization": f"Bearer {tokens['ada']}"}
        async with aiohttp.ClientSession() as session, session.get(guarded.url + path, headers=headers) as response:
            seen += await response.text()
    store = Store(database)
    seen += str(store.list_tokens())
    store.close()
    for secret in (row["lease"], *tokens.values()):
        assert secret not in seen
        assert secret not in caplog.text


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_with_a_certificate_all_of_it_is_https(start, tmp_path):
    ca = Authority(tmp_path)
    certificate, key = ca.issue("control")
    control = await start(tls_certificate=certificate, tls_key=key)
    assert control.url.startswith("https://")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls(ca=ca.certificate))) as session:
        async with session.get(control.url + "/available") as response:
            assert await response.json() == {"amount": 0}
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=session)
        await sio.connect(control.url, auth={"client_id": "x"}, transports=["websocket"], wait_timeout=20)
        await sio.disconnect()
        with pytest.raises(aiohttp.ClientError):
            await session.get(control.url.replace("https:", "http:") + "/available")
