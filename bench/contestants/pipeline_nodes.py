"""What bench/pipeline.py measures, each in a process of its own: echoing tasks, ours and others, and round trips."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time

STREAM = "bench_v1_0_0_flow"
DURABLE = f"{STREAM}-door-mix"
MESSAGES = int(os.environ.get("BENCH_MESSAGES", "10000"))


def config(url, name, inputs):
    from fieldstation.pipeline.environment import build

    return build(
        {
            "metadata": {
                "product_id": "bench",
                "version_tag": "v1.0.0",
                "workflow_name": "flow",
                "process_name": name,
            },
            "nats": {"url": url, "inputs": [f"{STREAM}.{sender}" for sender in inputs]},
            "runner": {"health": {"port": -1}},
        }
    )


async def ours(url):
    from fieldstation.pipeline import logs
    from fieldstation.pipeline.compose import build_service
    from fieldstation.pipeline.model import ProcessType
    from fieldstation.pipeline.node import Node

    async def echo(sdk, payload):
        return payload

    settings = config(url, "mix", ["door"])
    logs.setup(settings.runner.logger)
    service = build_service(Node(ProcessType.TASK, handlers={"default": echo}), settings)
    clock = started()
    await service.start()
    running = asyncio.create_task(service.run())
    while service.counts.succeeded < MESSAGES:
        await asyncio.sleep(0.005)
    result = clock()
    await service.stop()
    await asyncio.gather(running, return_exceptions=True)
    return result


async def push(url):
    import nats
    from nats.js import api

    client = await nats.connect(url)
    js = client.jetstream()
    room, count, done, acks = asyncio.Semaphore(256), 0, asyncio.Event(), set()

    async def arrived(msg):
        nonlocal count
        await room.acquire()
        confirmed = await js.publish_async(f"{STREAM}.mix", msg.data)

        def settle(_):
            nonlocal count
            room.release()
            task = asyncio.ensure_future(msg.ack())
            acks.add(task)
            task.add_done_callback(acks.discard)
            count += 1
            if count == MESSAGES:
                done.set()

        confirmed.add_done_callback(settle)

    clock = started()
    await js.subscribe(
        f"{STREAM}.door", queue=DURABLE, cb=arrived, manual_ack=True, config=api.ConsumerConfig(ack_wait=30)
    )
    await done.wait()
    while acks:
        await asyncio.sleep(0)
    await client.flush()
    result = clock()
    await client.close()
    return result


async def pull(url):
    import nats

    client = await nats.connect(url)
    js = client.jetstream()
    clock = started()
    subscription = await js.pull_subscribe_bind(DURABLE, STREAM)
    count = 0
    while count < MESSAGES:
        batch = await subscription.fetch(256, timeout=5)
        futures = [await js.publish_async(f"{STREAM}.mix", msg.data) for msg in batch]
        await asyncio.gather(*futures)
        for msg in batch:
            await msg.ack()
        count += len(batch)
    await client.flush()
    result = clock()
    await client.close()
    return result


async def faststream(url):
    from faststream.nats import JStream, NatsBroker
    from nats.js import api

    broker = NatsBroker(url, logger=None)
    stream = JStream(STREAM, declare=False)
    count, done = 0, asyncio.Event()

    @broker.subscriber(
        f"{STREAM}.door", queue=DURABLE, durable=DURABLE, stream=stream, config=api.ConsumerConfig(ack_wait=30)
    )
    async def echo(body: bytes) -> None:
        nonlocal count
        await broker.publish(body, f"{STREAM}.mix", stream=STREAM)
        count += 1
        if count == MESSAGES:
            done.set()

    clock = started()
    await broker.start()
    await done.wait()
    result = clock()
    await broker.stop()
    return result


def started():
    wall, cpu = time.perf_counter(), time.process_time()
    return lambda: (MESSAGES / (time.perf_counter() - wall), (time.process_time() - cpu) / MESSAGES * 1e6)


async def node(url, name, sender):
    """An echoing task or exit until killed."""
    from fieldstation.pipeline.compose import run_node
    from fieldstation.pipeline.model import ProcessType
    from fieldstation.pipeline.node import Node

    async def echo(sdk, payload):
        return payload

    await run_node(Node(ProcessType.TASK, handlers={"default": echo}), config(url, name, [sender]))


async def trips(url, in_flight, count):
    """A trigger that counts round trips; returns trips a second and the times of each in ms."""
    from google.protobuf.wrappers_pb2 import StringValue

    from fieldstation.pipeline.compose import build_service
    from fieldstation.pipeline.model import ProcessType
    from fieldstation.pipeline.node import Node

    result = asyncio.get_running_loop().create_future()

    async def door(requests, sdk):
        message, times, room = StringValue(value="x" * 100), [], asyncio.Semaphore(in_flight)

        async def one():
            async with room:
                begun = time.perf_counter()
                await requests.request(message)
                times.append((time.perf_counter() - begun) * 1000)

        await asyncio.gather(*(one() for _ in range(50)))
        times.clear()
        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        result.set_result((count / (time.perf_counter() - begun), times))

    service = build_service(Node(ProcessType.TRIGGER, runner=door), config(url, "door", ["out"]))
    await service.start()
    running = asyncio.create_task(service.run())
    rate, times = await result
    await service.stop()
    await asyncio.gather(running, return_exceptions=True)
    cuts = statistics.quantiles(times, n=100)
    return rate, cuts[49], cuts[98]


async def as_child(name, *arguments):
    if name == "node":
        await node(*arguments)
    elif name == "trips":
        print(json.dumps(await trips(arguments[0], int(arguments[1]), int(arguments[2]))))
    else:
        print(json.dumps(await globals()[name](*arguments)))


if __name__ == "__main__":
    asyncio.run(as_child(*sys.argv[1:]))
