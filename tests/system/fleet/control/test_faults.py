"""Control as a process of its own: killed, restarted, refused. Each test says what it kills and counts what is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys

import aiohttp
import pytest

from fieldstation.core.errors import ConfigError
from fieldstation.fleet import compose
from fieldstation.testing import ServerProcess, eventually, free_port, running

pytestmark = pytest.mark.timeout(180)  # each start of a process costs seconds where many tests run at once

QUICK = {
    "FIELDSTATION_FLEET_CONTROL_TICK_S": "0.05",
    "FIELDSTATION_FLEET_CONTROL_GRACE_S": "0.5",
}


def control(port: int, database: str, **settings: str) -> ServerProcess:
    command = ["fieldstation", "fleet", "control", "--port", str(port), "--database", database]
    server = ServerProcess(command, env={**QUICK, **settings})
    server.wait_ready(60)
    return server


async def test_control_killed_while_others_reserve_loses_no_lease_and_leases_nothing_twice(
    database, workers, apis, tmp_path
):
    """kill -9, three times, each time in the middle of reservations by four clients."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    api = apis(url)
    granted: dict[str, tuple[str, int]] = {}  # serial -> (client, fence) of the answers that arrived
    fences: dict[str, list[int]] = {}
    listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    devices: dict = {}
    for _ in range(3):
        server = await asyncio.to_thread(control, port, database)
        worker = await workers(url, url=address, devices=devices)
        devices = worker.devices
        known = (await api.get("/api/fleet/reservations"))[1]
        held = {row["serial"]: (row["client"], row["fence"]) for row in known}
        for serial, holder in granted.items():
            assert held[serial] == holder, "an acknowledged lease was lost"
        for row in known:  # what was written but not answered before the kill is ended by its owner
            await api.post("/endall", name=row["client"])
        granted.clear()
        await eventually(lambda: all_free(api), 30)

        async def churn(name: str) -> None:
            with contextlib.suppress(Exception):
                while True:
                    status, rows = await api.post("/reserve", amount=1, name=name, kind="pulsecount", args={})
                    if status != 200:
                        continue
                    for row in rows:
                        assert row["fence"] not in fences.get(row["serial"], ())
                        fences.setdefault(row["serial"], []).append(row["fence"])
                        granted[row["serial"]] = name, row["fence"]
                    for row in rows:  # from the moment its owner asks for the end, nobody may count on it
                        del granted[row["serial"]]
                    await api.post("/endall", name=name)

        churning = [asyncio.create_task(churn(f"c{number}")) for number in range(4)]
        seen = sum(map(len, fences.values()))
        await eventually(lambda: sum(map(len, fences.values())) >= seen + 10, 30)  # noqa: B023 - called before the next turn
        await asyncio.to_thread(server.kill)
        await asyncio.gather(*churning)
    for numbers in fences.values():
        assert numbers == sorted(set(numbers))
    listening.close()


async def all_free(api) -> bool:
    return await api.amount() == 4


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_lease_outlives_kill_and_restart_and_ends_when_its_client_is_killed(database, workers, listeners, apis):
    """kill -9 of control, then of the client."""
    port = free_port()
    server = await asyncio.to_thread(control, port, database)
    url = f"http://127.0.0.1:{port}"
    api = apis(url)
    listening = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    await workers(url, url=address)
    client = subprocess.Popen([sys.executable, "-c", CLIENT, url], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    rows = json.loads(await asyncio.to_thread(client.stdout.readline))
    assert len(rows) == 2
    await asyncio.to_thread(server.kill)
    server = await asyncio.to_thread(control, port, database)
    await workers(url, url=address)
    assert await asyncio.to_thread(client.stdout.readline) == "back\n"  # its library connects again by itself
    await asyncio.sleep(1.0)  # twice the grace time
    held = {row["serial"]: row["fence"] for row in (await api.get("/api/fleet/reservations"))[1]}
    assert held == {row["serial"]: row["fence"] for row in rows}
    client.kill()
    await asyncio.to_thread(client.wait)
    client.stdout.close()
    await eventually(lambda: nothing_held(api), 30)
    await asyncio.to_thread(server.stop)
    listening.close()


CLIENT = """
import aiohttp, asyncio, json, sys, socketio
url = sys.argv[1]
async def main():
    sio = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=0.2)
    count = 0
    async def connect():
        nonlocal count
        count += 1
        if count == 2:
            print("back", flush=True)
    sio.on("connect", connect)
    await sio.connect(url, auth={"client_id": "victim"}, transports=["websocket"], wait_timeout=20)
    want = {"amount": 2, "name": "victim", "kind": "pulsecount", "args": {}}
    async with aiohttp.ClientSession() as session, session.get(url + "/reserve", json=want) as answer:
        print(await answer.text(), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def nothing_held(api) -> bool:
    return (await api.get("/api/fleet/reservations"))[1] == []


async def test_stopped_with_sigterm_it_ends_cleanly_and_in_time(tmp_path, apis, workers, listeners):
    database = f"sqlite:///{tmp_path / 'f.db'}"
    with running("fieldstation", "fleet", "control", "--port", "0", "--database", database, deadline_s=60) as server:
        worker = await workers(server.url)
        await listeners(server.url, "bob")
        api = apis(server.url)
        rows = await api.reserve(4)
        waiting = asyncio.create_task(api.post("/reserve", amount=1, name="x", kind="pulsecount", args={}, wait_s=15))
        await eventually(lambda: len(worker.calls) >= 1)
        await asyncio.sleep(0.1)  # the waiting request is on its way; nothing depends on it having arrived
        assert await asyncio.to_thread(server.stop, 10.0) == 0
        with contextlib.suppress(Exception):
            assert (await waiting)[0] == 202
        assert "Traceback" not in server.output
    with running("fieldstation", "fleet", "control", "--port", "0", "--database", database, deadline_s=60) as server:
        held = (await apis(server.url).get("/api/fleet/reservations"))[1]
        assert [row["serial"] for row in held] == [row["serial"] for row in rows]


async def test_what_keeps_it_from_starting_is_one_sentence_and_exit_code_1(tmp_path):
    taken = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = str(taken.sockets[0].getsockname()[1])
    database = f"sqlite:///{tmp_path / 'f.db'}"
    command = [sys.executable, "-m", "fieldstation", "fleet", "control", "--port", port, "--database", database]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    assert process.returncode == 1
    assert output == b""
    sentence = f"fieldstation: Cannot listen on 127.0.0.1 port {port}: Address already in use."
    assert errors.decode().splitlines()[-1].startswith(sentence)
    assert b"Traceback" not in errors
    taken.close()


@pytest.mark.parametrize(
    ("options", "env", "says"),
    [
        ({}, {"FIELDSTATION_FLEET_CONTROL_GRACE_S": "soon"}, "'grace_s' in the environment"),
        ({}, {"USBIPICE_CONTROL_PORT": "99999"}, "'port' in the environment"),
        ({"overrides": {"tls_key": "k.pem"}}, {}, "belong together"),
        ({"values": {"grace": 5}}, {}, "did you mean 'grace_s'?"),
        ({"values": {"lease_s": 0}}, {}, "'lease_s'"),
        ({"values": {"silent_beats": True, "host": ""}}, {}, "'host'"),
    ],
)
def test_wrong_settings_are_named(options, env, says):
    with pytest.raises(ConfigError) as caught:
        compose.control_config(environ=env, **options)
    assert says in str(caught.value)


def test_our_variable_wins_over_the_documented_ones():
    env = {"USBIPICE_CONTROL_PORT": "1", "ICEFARM_CONTROL_PORT": "2"}
    assert compose.control_config(environ=env).port == 2
    assert compose.control_config(environ={**env, "FIELDSTATION_FLEET_CONTROL_PORT": "3"}).port == 3
    assert compose.control_config(environ={"ICEFARM_DATABASE": "host=h dbname=d"}).database == "host=h dbname=d"


async def test_documented_variables_are_honoured(tmp_path, apis):
    port = free_port()
    env = {"USBIPICE_DATABASE": f"sqlite:///{tmp_path / 'old.db'}", "ICEFARM_CONTROL_PORT": str(port)}
    with running("fieldstation", "fleet", "control", env=env, deadline_s=60) as server:
        assert server.url == f"http://127.0.0.1:{port}"
        assert await apis(server.url).amount() == 0
    assert (tmp_path / "old.db").exists()


async def test_it_runs_under_somebody_elses_asgi_server(tmp_path, apis, workers):
    port = free_port()
    env = {**os.environ, "FIELDSTATION_FLEET_CONTROL_DATABASE": f"sqlite:///{tmp_path / 'f.db'}"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "fieldstation.fleet.compose:control_asgi"]
    with subprocess.Popen([*command, "--port", str(port)], env=env, stderr=subprocess.PIPE, text=True) as server:
        api = apis(f"http://127.0.0.1:{port}")

        async def up() -> bool:
            with contextlib.suppress(OSError, aiohttp.ClientError):
                return (await api.get("/available"))[0] == 200
            return False

        await eventually(up, 60)
        await workers(api.url)
        assert len(await api.reserve(2)) == 2
        server.terminate()
        _, errors = await asyncio.to_thread(server.communicate, timeout=15)
    assert "Traceback" not in errors
