"""A task that echoes, ours against plain nats-py and FastStream; round trips through a graph; start, memory, replicas.

Every contestant runs in a process of its own, in turn, on the same broker. The raw ways are what one would write by
hand: push (the documented queue consumer, work in flight bounded, asynchronous publishing, acknowledged on
confirmation) and pull (batches of 256).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from contestants.pipeline_nodes import DURABLE, MESSAGES, STREAM, config
from rows import Row, main

CONTESTANTS = Path(__file__).parent / "contestants" / "pipeline_nodes.py"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
BUCKETS = ("bench", "bench_v1_0_0", "bench_v1_0_0_flow", *(f"bench_v1_0_0_flow_{n}" for n in ("mix", "out", "door")))


def child(*arguments):
    """Run one contestant in a process of its own; returns what it printed as JSON."""
    done = subprocess.run(
        [sys.executable, CONTESTANTS, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


async def prepare(url, *, filled, pull_consumer=False, ack_wait_s=30):
    """A fresh stream with its consumers; `filled` messages wait in it."""
    import nats
    from google.protobuf.wrappers_pb2 import StringValue
    from nats.js import api
    from nats.js.errors import NotFoundError

    from fieldstation.pipeline.model import Message
    from fieldstation.pipeline.names import deliver_subject
    from fieldstation.pipeline.wire import codec

    client = await nats.connect(url)
    js = client.jetstream(timeout=20)
    for name in (STREAM, f"{STREAM}_dead-letters"):
        with contextlib.suppress(NotFoundError):
            await js.delete_stream(name)
    await js.add_stream(name=STREAM, subjects=[f"{STREAM}.*"], retention="interest")
    for bucket in BUCKETS:
        with contextlib.suppress(Exception):
            await js.create_key_value(bucket=f"key-store_{bucket}")
    for sender, name in (("door", "mix"), ("mix", "out")) if not filled else (("door", "mix"),):
        durable = f"{STREAM}-{sender}-{name}"
        push_to = {} if pull_consumer else {"deliver_subject": deliver_subject(durable), "deliver_group": durable}
        await js.add_consumer(
            STREAM,
            api.ConsumerConfig(
                durable_name=durable,
                filter_subject=f"{STREAM}.{sender}",
                deliver_policy="new",
                ack_policy="explicit",
                ack_wait=ack_wait_s,
                **push_to,
            ),
        )
    body = codec.encode(
        Message("c0ffee00-1111-2222-3333-444444444444", codec.pack(StringValue(value="x" * 100)), "", "door")
    )
    for begin in range(0, filled, 500):
        futures = [await js.publish_async(f"{STREAM}.door", body) for _ in range(min(500, filled - begin))]
        await asyncio.gather(*futures)
    await client.close()


def broker_on(folder, sync):
    from fieldstation.pipeline.broker import Broker, BrokerSettings

    return Broker(BrokerSettings(Path(folder), sync_interval=sync))


async def echoes(url):
    """Rounds of every contestant in turn: name -> [(messages a second, µs CPU a message), ...]."""
    found = {name: [] for name in ("ours", "push", "pull", "faststream")}
    for _ in range(ROUNDS):
        for name, results in found.items():
            await prepare(url, filled=MESSAGES, pull_consumer=name == "pull")
            results.append(await asyncio.to_thread(child, name, url))
    return found


async def publishing(url):
    """Messages a second that plain nats-py stores with 64 in flight: what the disk and the broker allow."""
    import nats

    client = await nats.connect(url)
    js = client.jetstream(timeout=20)
    await js.add_stream(name="raw", subjects=["raw"])
    begun = time.perf_counter()
    for _ in range(25):
        await asyncio.gather(*[await js.publish_async("raw", b"x" * 100) for _ in range(64)])
    rate = 25 * 64 / (time.perf_counter() - begun)
    await js.delete_stream("raw")
    await client.close()
    return rate


async def graph(url):
    before = await publishing(url)
    await prepare(url, filled=0)
    echoing = [
        subprocess.Popen(
            [sys.executable, CONTESTANTS, "node", url, name, sender],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        for name, sender in (("mix", "door"), ("out", "mix"))
    ]
    try:
        for process in echoing:
            process.stdout.readline()
        many = await asyncio.to_thread(child, "trips", url, 64, 3000)
        single = await asyncio.to_thread(child, "trips", url, 1, 400)
    finally:
        for process in echoing:
            process.terminate()
            process.wait(10)
    return many, single, (before + await publishing(url)) / 2


NODE = """
import hashlib
from fieldstation import pipeline

@pipeline.task
def mix(sdk, payload):
    data = b"x" * 64
    for _ in range(12000):
        data = hashlib.sha256(data).digest()
"""


def node_process(url, file):
    """Start the node in `file` as a manager does, configured by environment; returns it once it is ready."""
    environment = {**os.environ, "KAI_NATS_INPUTS": f"{STREAM}.door", "KAI_NATS_URL": url}
    for key, value in config(url, "mix", ["door"]).metadata.model_dump().items():
        environment[f"KAI_METADATA_{key.upper()}"] = value
    environment["KAI_RUNNER_SUBSCRIBER_ACK_WAIT_TIME"] = f"{REDO_ACK_WAIT_S}s"
    process = subprocess.Popen(
        [sys.executable, "-m", "fieldstation.pipeline", str(file)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process.stdout.readline()
    return process


SLOW = """
import os, time
from fieldstation import pipeline

@pipeline.task
def mix(sdk, payload):
    with open("{begun}", "a") as file:
        file.write(f"{{time.monotonic()}}\\n")
    time.sleep(60 if {first} else 0)
"""
REDO_ACK_WAIT_S = 2


async def redone_after(url, folder):
    """Seconds from kill -9 of a replica mid-handler until another begins the same message."""
    begun = Path(folder) / "begun"
    begun.unlink(missing_ok=True)
    files = [Path(folder) / f"slow-{first}.py" for first in (True, False)]
    for file, first in zip(files, (True, False), strict=True):
        file.write_text(SLOW.format(begun=begun, first=first))
    await prepare(url, filled=0, ack_wait_s=REDO_ACK_WAIT_S)
    first = await asyncio.to_thread(node_process, url, files[0])
    await refill(url, 1)
    while not begun.exists():
        await asyncio.sleep(0.01)
    second = await asyncio.to_thread(node_process, url, files[1])
    first.kill()
    killed = time.monotonic()
    while len(lines := begun.read_text().splitlines()) < 2:
        await asyncio.sleep(0.01)
    for process in (first, second):
        process.terminate()
        process.wait(10)
    return float(lines[1]) - killed


async def replicas(url, folder, count):
    """Messages a second of CPU-bound work with `count` replicas; also the start time and memory of the last."""
    import psutil

    total = 400
    file = Path(folder) / "mix.py"
    file.write_text(NODE)
    await prepare(url, filled=0)
    processes, starts, memory = [], [], 0.0
    try:
        for _ in range(count):
            begun = time.perf_counter()
            process = node_process(url, file)
            processes.append(process)
            starts.append(time.perf_counter() - begun)
            memory = psutil.Process(process.pid).memory_info().rss / 2**20
        await asyncio.sleep(0.2)
        begun = time.perf_counter()
        await refill(url, total)
        await drained(url)
        rate = total / (time.perf_counter() - begun)
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)
    return rate, min(starts), memory


async def refill(url, count):
    import nats

    client = await nats.connect(url)
    js = client.jetstream()
    for _ in range(count):
        await js.publish(f"{STREAM}.door", b"")
    await client.close()


async def drained(url):
    import nats

    client = await nats.connect(url)
    js = client.jetstream()
    while True:
        info = await js.consumer_info(STREAM, DURABLE)
        if info.num_pending + info.num_ack_pending == 0:
            break
        await asyncio.sleep(0.01)
    await client.close()


def median(results, index):
    return statistics.median(result[index] for result in results)


def echo_rows(found, label, promised):
    """Rate and CPU of our task beside the others; the ratios are to the faster raw way."""
    best = max(("push", "pull"), key=lambda name: median(found[name], 0))
    rows = []
    for index, what, promise in ((0, "messages/s", "at least 0.6"), (1, "µs CPU a message", "at most 2")):
        raw = ", ".join(f"{name} {median(results, index):,.0f}" for name, results in found.items() if name != "ours")
        pairs = zip(found["ours"], found[best], strict=True)
        ratio = statistics.median(mine[index] / theirs[index] for mine, theirs in pairs)
        what = f"echo task, {label}, {what}"
        rows.append(Row(what, f"{median(found['ours'], index):,.0f}", raw, ratio, promise if promised else ""))
    return rows


def graph_rows(many, single, raw, label, promise):
    one = f"{single[1]:.1f} and {single[2]:.1f}"
    limit = f"plain publishing {raw:,.0f} messages/s, a trip has three"
    trips = f"round trips/s, 64 in flight, {label}"
    return [
        Row(trips, f"{many[0]:,.0f}", limit, many[0] * 3 / raw, f"at least {promise:,} a second"),
        Row(f"round trip, one in flight, {label}, p50 and p99 ms", one, "", None, "3 and 15 on an idle machine"),
    ]


async def replica_rows(url, folder):
    pairs = [(await replicas(url, folder, 3), await replicas(url, folder, 1)) for _ in range(ROUNDS)]
    gain = statistics.median(three[0] / one[0] for three, one in pairs)
    three, one = pairs[-1]
    start = min(result[1] for pair in pairs for result in pair)
    what = "three CPU-bound replicas on two cores, messages/s"
    return [
        Row(what, f"{three[0]:.0f}", f"one replica {one[0]:.0f}", gain, "at least 1.6"),
        Row("process start to subscribed, s", f"{start:.2f}", "", None, "below 0.4"),
        Row("idle memory of a node, MiB", f"{one[2]:.0f}", "", None, "below 50"),
    ]


async def everything():
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for sync, label, promise in (("10s", "lazy sync", 1500), ("always", "sync always", 500)):
            broker = broker_on(Path(folder) / label, sync)
            await broker.start()
            try:
                rows += echo_rows(await echoes(broker.url), label, promised=sync == "10s")
                rows += graph_rows(*await graph(broker.url), label, promise)
                if sync == "10s":
                    rows += await replica_rows(broker.url, folder)
                    after = [await redone_after(broker.url, folder) for _ in range(ROUNDS)]
                    what = "kill -9 mid-handler: another replica begins the message after, s"
                    rows.append(Row(what, f"{max(after):.2f}", "", None, f"the ack wait, here {REDO_ACK_WAIT_S}"))
            finally:
                await broker.stop()
    return rows


def measure() -> list[Row]:
    return asyncio.run(everything())


if __name__ == "__main__":
    main("pipeline", measure)
