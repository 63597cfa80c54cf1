"""The uplinks against real brokers: Tenta's and ThingsBoard's sides simulated, NATS, mutual TLS as AWS IoT has it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess

import nats as nats_client
import paho.mqtt.client as paho
import pytest

from fieldstation.station.config import NATSConfig
from fieldstation.station.reading import Inbox, read_stream
from fieldstation.station.sim import serve
from fieldstation.testing import Authority, eventually, mosquitto, wait_for
from fieldstation.testing.line import Line

pytestmark = pytest.mark.timeout(180)

NUMBERS = """
import time
from fieldstation.station import DataMessageBody, MessagingAgent
def run(config, logger):
    agent = MessagingAgent()
    for n in range({count}):
        agent.add_message(DataMessageBody(data={{"n": n, "note": "text"}}))
        time.sleep({pause})
    while True:
        time.sleep(1)
"""


def numbers(count, pause=0.0):
    return {"procedures": {"counting": "counting:run"}, "counting": NUMBERS.format(count=count, pause=pause)}


async def in_thread(function, *arguments):
    return await asyncio.to_thread(function, *arguments)


async def test_thingsboard_takes_everything_and_its_config_is_answered(make_station, config_for, mosquitto):
    async with serve(mosquitto.port, "thingsboard") as server:
        new = config_for(mosquitto.port)
        new["general"]["config_revision"] = 2
        server.set_config(new)  # while the station is off
        await in_thread(make_station(config_for(mosquitto.port), **numbers(20)).start)
        await server.wait_for(lambda r: len({e["values"]["n"] for e in r.data}) == 20)
        await server.wait_for(lambda r: r.answers and r.answers[-1]["status"] == "accepted")
        assert server.recorded.problems == []


async def test_tenta_takes_everything_and_its_retained_config_is_answered_once(make_station, config_for, mosquitto):
    async with serve(mosquitto.port, "tenta") as server:
        new = config_for(mosquitto.port, provider="tenta")
        new["general"]["config_revision"] = 5
        station = make_station(config_for(mosquitto.port, provider="tenta"), **numbers(20))
        await in_thread(station.start)
        await server.wait_for(lambda r: len({e["value"]["n"] for e in r.data}) == 20)
        await server.push_config(new, "roof")
        await server.wait_for(lambda r: r.answers)
        assert server.recorded.answers[0]["revision"] == 5
        assert server.recorded.answers[0]["success"] is True
        # The retained config comes again with the next start: neither tried nor answered again.
        await in_thread(station.stop)
        await in_thread(station.start)
        await eventually(lambda: station.snapshot()["ok"])
        assert len(server.recorded.answers) == 1
        assert server.recorded.problems == []


def nats_config(config_for, url, **changes):
    config = config_for(None)
    config["backend"] = {"provider": "nats", "nats_connection": {"servers": [url]} | changes, "max_drain_time": 10}
    return config


async def test_nats_no_outage_makes_a_duplicate_not_even_one_longer_than_the_window(
    make_station, config_for, nats, tmp_path
):
    line = Line(nats.port)
    # A window of a second, so that the outage outlasts it.
    config = nats_config(config_for, f"nats://127.0.0.1:{line.port}", duplicate_window_s=1)
    station = make_station(config, **numbers(300, 0.01))
    await in_thread(station.start)
    await eventually(lambda: station.process("backend").get("details", {}).get("delivered", 0) > 20)
    line.hold()
    await asyncio.sleep(2.5)  # longer than the window
    line.hold(False)
    await eventually(lambda: station.snapshot()["queues"]["backend"]["depth"] == 0, 60)
    pid = station.process("backend")["pid"]
    os.kill(pid, signal.SIGKILL)
    inbox = Inbox(tmp_path / "inbox.sqlite3")
    reading = asyncio.create_task(read_stream(NATSConfig(servers=[nats.url]), inbox))
    await eventually(lambda: len(inbox.ids()) >= 300)
    reading.cancel()
    await asyncio.wait([reading])
    rows = inbox._connection.execute("SELECT body FROM received WHERE kind = 'data'").fetchall()
    found = [json.loads(row[0])["data"]["n"] for row in rows]
    assert sorted(found) == list(range(300))
    inbox.close()
    line.close()


async def test_nats_a_config_published_while_the_station_was_off_is_taken(make_station, config_for, nats):
    config = nats_config(config_for, nats.url)
    station = make_station(config, **numbers(3))
    await in_thread(station.start)
    await eventually(lambda: station.snapshot()["ok"])
    await in_thread(station.stop)
    new = nats_config(config_for, nats.url)
    new["general"]["config_revision"] = 7
    client = await nats_client.connect(nats.url)
    await client.jetstream().publish("station.roof.config", json.dumps(new).encode())
    answers = await client.jetstream().subscribe("station.roof.answer", ordered_consumer=True)
    await in_thread(station.start)
    seen = []
    while (7, "accepted") not in seen:
        message = await answers.next_msg(timeout=20)
        body = json.loads(message.data)["body"]
        seen.append((body["config"]["general"]["config_revision"], body["status"]))
        assert message.headers["Nats-Msg-Id"] == json.loads(message.data)["id"]
    await client.close()


def certificates(folder, name):
    """A CA with a server and a client certificate."""
    ca = Authority(folder, name)
    for who in ("server", "roof"):
        ca.issue(who)
    return folder


def aws_config(config_for, port, folder, ca):
    config = config_for(port, provider="aws_iot")
    config["backend"]["mqtt_connection"] |= {
        "host": "localhost", "username": None, "password": None, "ca_file": str(ca / "ca.crt"),
        "certificate_file": str(folder / "roof.crt"), "key_file": str(folder / "roof.key"),
    }  # fmt: skip
    return config


def test_aws_iot_mutual_tls_delivers_and_a_wrong_ca_backs_off_without_a_storm(make_station, config_for, tmp_path):
    folder = certificates(tmp_path / "pki", "Test IoT CA")
    other = certificates(tmp_path / "other", "Another CA")
    settings = (
        f"cafile {folder}/ca.crt\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\n"
        "require_certificate true\nuse_identity_as_username true"
    )
    with mosquitto(tmp_path / "tls", settings=settings) as broker:
        seen = []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, "watcher")
        client.tls_set(str(folder / "ca.crt"), str(folder / "roof.crt"), str(folder / "roof.key"))
        client.on_connect = lambda c, *_: c.subscribe("dt/station/roof/data", 1)
        client.on_message = lambda c, d, message: seen.append(json.loads(message.payload))
        client.connect("localhost", broker.port)
        client.loop_start()
        wait_for(client.is_connected)
        station = make_station(aws_config(config_for, broker.port, folder, folder), **numbers(20)).start()
        wait_for(lambda: len({m["id"] for m in seen}) == 20)
        station.stop()
        client.loop_stop()
        client.disconnect()
        wrong = make_station(aws_config(config_for, broker.port, folder, other), **numbers(3)).start()
        details = wait_for(lambda: wrong.process("backend").get("details", {}).get("last_error"))
        assert "TLS" in details
        assert wrong.process("backend")["details"]["connects"] == 0
        assert wrong.process("backend")["deaths"] == 0


def test_a_wrong_password_backs_off_without_a_storm(make_station, config_for, tmp_path):
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "u", "another"], check=True, capture_output=True)
    with mosquitto(tmp_path / "locked", settings=f"allow_anonymous false\npassword_file {passwords}") as broker:
        line = Line(broker.port)
        station = make_station(config_for(line.port), **numbers(3)).start()
        wait_for(lambda: "refused" in (station.process("backend").get("details", {}).get("last_error") or ""))
        wait_for(lambda: line.connections >= 3)
        assert line.connections < 8
        assert station.process("backend")["deaths"] == 0
        assert station.snapshot()["queues"]["backend"]["depth"] < 20
        assert "s3cret-pw" not in station.server.output
        line.close()


async def test_two_uplinks_at_once_each_deliver_everything(make_station, config_for, mosquitto, nats):
    config = config_for(mosquitto.port)
    config["uplinks"] = {"panel": {"provider": "nats", "nats_connection": {"servers": [nats.url]}, "max_drain_time": 5}}
    async with serve(mosquitto.port, "thingsboard") as server:
        station = make_station(config, **numbers(50))
        await in_thread(station.start)
        await server.wait_for(lambda r: len({e["values"]["n"] for e in r.data}) == 50)
        await eventually(lambda: all(q["depth"] == 0 for q in station.snapshot()["queues"].values()))
        info = await nats_client.connect(nats.url)
        state = (await info.jetstream().stream_info("STATION")).state
        assert state.messages >= 50
        await info.close()


@pytest.mark.soak  # the pauses between the tries are those of a real line
def test_a_row_for_which_the_broker_closes_the_line_is_set_aside_and_the_rest_is_delivered(
    make_station, config_for, count_at, tmp_path
):
    text = NUMBERS.replace('"text"', '"x" * (9000 if n == 7 else 1)').format(count=60, pause=0.0)
    with mosquitto(tmp_path / "strict", settings="allow_anonymous true\nmax_packet_size 4000") as broker:
        counter = count_at(broker.port)
        station = make_station(config_for(broker.port), {"counting": "counting:run"}, counting=text).start()
        wait_for(lambda: set(counter.numbers) == set(range(60)) - {7}, 80)
        wait_for(lambda: any("closes the line" in str(m) for m in counter.messages))
        wait_for(lambda: station.snapshot()["queues"]["backend"]["depth"] == 0)
        assert station.process("backend")["details"]["parked"] == 1


def test_a_flapping_line_loses_nothing(make_station, config_for, line, counter):
    station = make_station(config_for(line.port), **numbers(200, 0.02)).start()
    for before in range(1, 5):
        wait_for(lambda at=before: station.process("backend").get("details", {}).get("connects", 0) >= at)
        line.cut()
    wait_for(lambda: len(set(counter.numbers)) == 200)
    assert sorted(set(counter.numbers)) == list(range(200))
    # QoS 1 may repeat what was on its way at a cut, and nothing else.
    assert len(counter.numbers) <= 200 + 5 * 20


def test_a_broker_that_restarts_and_forgets_its_sessions_gets_everything(
    make_station, config_for, mosquitto, line, counter
):
    station = make_station(config_for(line.port), **numbers(200, 0.02)).start()
    wait_for(lambda: len(counter.numbers) > 20)
    line.refuse()
    mosquitto.kill()
    for path in mosquitto.folder.glob("*.db"):
        path.unlink()
    mosquitto.start()
    wait_for(counter._client.is_connected)
    line.refuse(False)
    wait_for(lambda: len(set(counter.numbers)) == 200, 60)
    new = config_for(line.port)
    new["general"]["config_revision"] = 2
    counter.publish("v1/devices/me/attributes", {"configuration": new})
    wait_for(lambda: (2, "accepted") in counter.answers())
    assert station.process("backend")["deaths"] == 0
