"""What is killed, how often, and that nothing is lost: one broker restarted, three servers and workers killed."""

import asyncio
import random
import signal
import time
from collections import Counter

import pytest

STREAM = "demo_v0_1_0_flow"


async def restart(broker):
    broker.kill()
    await broker.process.wait()
    await broker.start()


@pytest.mark.timeout(120)
async def test_flow_resumes_within_three_seconds_of_a_broker_restart_five_of_five(rig, texts):
    await restarts(rig, texts, 5)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_flow_resumes_within_three_seconds_of_a_broker_restart_a_hundred_of_a_hundred(rig, texts):
    await restarts(rig, texts, 100)


async def restarts(rig, texts, count):
    flow = await rig()
    collected = await flow.collector(f"{STREAM}.out")
    await flow.start("out")
    child = await flow.spawn("mix", "echo.py")
    for number in range(count):
        await restart(flow.brokers[0])
        restarted = time.monotonic()
        await flow.feed("door", [f"after-{number}"])

        async def through(number=number):
            return len(await collected()) == number + 1

        await flow.eventually(through, 10)
        # The promise is about the product, so this is its deadline and not a measurement.
        assert time.monotonic() - restarted < 3.0
    assert child.returncode is None
    assert texts(await collected()) == [f"after-{number}" for number in range(count)]


@pytest.mark.timeout(60)
async def test_configuration_is_followed_across_a_broker_restart(rig):
    flow = await rig()
    config = (await flow.start("mix")).sdk.centralized_config
    await config.set_config("gain", "1")
    seen = []

    async def watch():
        async for value in config.watch("gain"):
            seen.append(value)

    watching = asyncio.create_task(watch())
    await flow.eventually(lambda: seen == ["1"])
    await restart(flow.brokers[0])
    bucket = await flow.js.key_value("key-store_demo_v0_1_0_flow_mix")
    await bucket.put("gain", b"2")
    await flow.eventually(lambda: seen == ["1", "2"], 15)
    await bucket.put("gain", b"3")
    await flow.eventually(lambda: seen == ["1", "2", "3"], 15)
    assert await config.get_config("gain") == ("3", True)
    watching.cancel()


@pytest.mark.timeout(240)
async def test_killing_servers_and_workers_loses_nothing_of_five_thousand(rig, texts):
    await massacre(rig, texts, 5_000, pause_s=0.7)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_killing_servers_and_workers_loses_nothing_of_two_hundred_thousand(rig, texts):
    await massacre(rig, texts, 200_000, pause_s=3.0)


async def massacre(rig, texts, count, pause_s):
    """Three servers, streams with three replicas, two worker processes; kill -9 of one server or worker at a time."""
    flow = await rig(servers=3, ack_wait_s=3.0, sync="always")
    collected = await flow.collector(f"{STREAM}.mix")
    workers = [await flow.spawn("mix", "echo.py") for _ in range(2)]
    chosen = random.Random(7)
    killed = Counter()
    finished = asyncio.Event()

    async def kill():
        victims = [("server", index) for index in range(3)] + [("worker", index) for index in range(2)]
        while not finished.is_set():
            chosen.shuffle(victims)
            for kind, index in victims:
                await asyncio.sleep(pause_s)
                if finished.is_set():
                    return
                killed[kind] += 1
                if kind == "worker":
                    await flow.end(workers[index], signal.SIGKILL)
                    workers[index] = await flow.spawn("mix", "echo.py")
                else:
                    broker = flow.brokers[index]
                    broker.kill()
                    await broker.process.wait()
                    await asyncio.sleep(0.3)
                    await broker.start()
                    await flow.eventually(lambda: in_step(flow), 60)

    async def all_there():
        return len(await collected()) >= count

    killing = asyncio.create_task(kill())
    wanted = [str(number) for number in range(count)]
    try:
        chunk = count // 10
        for start in range(0, count, chunk):
            # However fast the messages go through, every server and worker is killed among them.
            await flow.eventually(lambda start=start: killing.done() or killed.total() >= start * 6 / count, 60)
            await flow.feed("door", wanted[start : start + chunk])
            if killing.done():
                killing.result()
        await flow.eventually(all_there, 60 + count / 200)
    finally:
        finished.set()
        await asyncio.gather(killing, return_exceptions=True)
    if killing.exception() is not None:
        raise killing.exception()
    assert killed["server"] >= 3
    assert killed["worker"] >= 2
    got = Counter(texts(await collected()))
    missing = [text for text in wanted if text not in got]
    assert missing == []
    assert {text: seen for text, seen in got.items() if seen > 1} == {}
    assert len(got) == count
    print(f"killed {dict(killed)}, lost 0 of {count}, duplicated 0")


async def in_step(flow):
    """True when the stream has a leader and three current replicas: then the next server may be killed."""
    try:
        info = await flow.js.stream_info(STREAM)
    except Exception:
        return False
    return bool(
        info.cluster
        and info.cluster.leader
        and len(info.cluster.replicas or []) == 2
        and all(peer.current and not peer.offline for peer in info.cluster.replicas)
    )
