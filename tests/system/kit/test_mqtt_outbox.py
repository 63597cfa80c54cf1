"""The outbox against a real broker, with the broker down, with the sender killed, with a full disk."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fieldstation.core.errors import StoreError
from fieldstation.core.retry import Backoff
from fieldstation.kit.mqtt import MqttClient, MqttSettings
from fieldstation.kit.mqtt_blocking import BlockingMqttClient
from fieldstation.kit.mqtt_outbox import MqttOutbox, OutboxFullError

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("mosquitto")]

QUICK = Backoff(initial_s=0.02, ceiling_s=0.1)


def client(broker: Any, **more: Any) -> MqttClient:
    return MqttClient(MqttSettings(**{"port": broker.port, "backoff": QUICK} | more))


async def until(condition: Callable[[], bool], deadline_s: float = 30) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


PUBLISHER = """
import asyncio, sys
from pathlib import Path
from fieldstation.kit.mqtt import MqttClient, MqttSettings
from fieldstation.kit.mqtt_outbox import MqttOutbox

async def main(path, port, first):
    async with MqttOutbox(MqttClient(MqttSettings(port=int(port))), Path(path)) as outbox:
        number = int(first)
        while True:
            async with asyncio.TaskGroup() as group:
                for n in range(number, number + 100):
                    group.create_task(outbox.publish(f"t/{n % 3}", str(n)))
            number += 100
            print(number, flush=True)   # all below are on disk

asyncio.run(main(*sys.argv[1:]))
"""


def publish_until_killed(folder: Path, port: int, first: int, at_least: int) -> int:
    """Run a publisher, kill -9 it after `at_least` acknowledged publishes; returns how many it had acknowledged."""
    script = folder / "publisher.py"
    script.write_text(textwrap.dedent(PUBLISHER))
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder / "outbox.db"), str(port), str(first)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    done = first
    with process.stdout:
        while done < first + at_least:
            line = process.stdout.readline()
            assert line, "the publisher ended by itself"
            done = int(line)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for line in process.stdout:
            done = int(line)
    return done


async def test_ten_thousand_publishes_without_broker_and_two_kills_all_arrive_in_order(
    make_broker: Any, tmp_path: Path
) -> None:
    broker = make_broker("allow_anonymous true\nmax_queued_messages 0")
    first = await asyncio.to_thread(publish_until_killed, tmp_path, broker.port, 0, 5_000)
    second = await asyncio.to_thread(publish_until_killed, tmp_path, broker.port, first, 5_000)
    assert second >= 10_000
    await asyncio.to_thread(broker.start)
    heard: dict[str, list[int]] = {"t/0": [], "t/1": [], "t/2": []}

    async def hear(message: Any) -> None:
        heard[message.topic].append(int(message.text))

    async with client(broker) as listener:
        await listener.subscribe("t/+", hear, qos=1)
        async with MqttOutbox(client(broker), tmp_path / "outbox.db") as outbox:
            await outbox.flush(40)
            owed = outbox.waiting
        total = lambda: sum(len(numbers) for numbers in heard.values())  # noqa: E731 - a name for one expression
        await until(lambda: total() >= second)
    everything = sorted(number for numbers in heard.values() for number in numbers)
    assert owed == 0
    # The kill may have cut a batch of 100 that was durable but never reported: those may be there, none may be missing.
    assert set(range(second)) <= set(everything)
    assert len(everything) == len(set(everything)), "nothing came twice"
    assert all(numbers == sorted(numbers) for numbers in heard.values()), "order per topic"


async def test_the_outbox_empties_after_its_broker_was_killed_while_it_sent(broker: Any, tmp_path: Path) -> None:
    async with MqttOutbox(client(broker), tmp_path / "o.db") as outbox:
        async with asyncio.TaskGroup() as group:
            for number in range(3_000):
                group.create_task(outbox.publish("t", str(number)))
        broker.kill()
        owed = outbox.waiting
        await until(lambda: not outbox.client.connected)
        await asyncio.to_thread(broker.start)
        await outbox.flush(30)
        assert owed > 0
        assert outbox.waiting == 0


async def test_a_message_the_broker_refuses_is_set_aside_and_blocks_nothing(make_broker: Any, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite ok/#\n")
    broker = make_broker(f"allow_anonymous true\nacl_file {tmp_path / 'acl'}").start()
    async with MqttOutbox(client(broker, version="5"), tmp_path / "o.db") as outbox:
        await outbox.publish("no/x", b"poison")
        await outbox.publish("ok/x", b"fine")
        await outbox.flush(10)
        refused = await outbox.refused()
    assert [(topic, payload) for topic, payload, _ in refused] == [("no/x", b"poison")]


async def test_a_full_outbox_refuses_loudly(make_broker: Any, tmp_path: Path) -> None:
    async with MqttOutbox(client(make_broker()), tmp_path / "o.db", max_messages=3) as outbox:
        for _ in range(3):
            await outbox.publish("t")
        with pytest.raises(OutboxFullError, match="3 messages"):
            await outbox.publish("t")


async def test_a_full_disk_is_an_error_and_what_was_acknowledged_stays(make_broker: Any, tmp_path: Path) -> None:
    broker = make_broker()
    async with MqttOutbox(client(broker), tmp_path / "o.db") as outbox:
        await outbox.publish("t", b"kept")
        # SQLite's own limit stands for a full disk: it answers with the same error.
        await outbox._do(lambda db: db.execute("PRAGMA max_page_count=8"))
        with pytest.raises(StoreError, match="full"):
            await outbox.publish("t", b"x" * 1_000_000)
        assert outbox.waiting == 1
    async with MqttOutbox(client(broker), tmp_path / "o.db") as outbox:
        assert outbox.waiting == 1


def test_a_plain_script_publishes_through_the_outbox(broker: Any, tmp_path: Path) -> None:
    heard: list[Any] = []
    settings = MqttSettings(port=broker.port, backoff=QUICK)
    with BlockingMqttClient(settings) as listener, BlockingMqttClient(settings, outbox=tmp_path / "o.db") as speaker:

        @listener.on("lab/+/t")
        def hear(message: Any) -> None:
            heard.append(message.json())
            listener.publish("lab/answer", "from inside a handler", qos=1)

        speaker.publish_json("lab/1/t", {"c": 21})
        speaker.flush(10)
        asyncio.run(until(lambda: bool(heard)))
    assert heard == [{"c": 21}]
