"""A real NATS per test, provisioned from a manifest, with nodes in this process or as child processes."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import nats.errors
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from fieldstation.pipeline.broker import Broker, BrokerSettings, free_port
from fieldstation.pipeline.compose import build_service
from fieldstation.pipeline.config import Nats
from fieldstation.pipeline.environment import build
from fieldstation.pipeline.manifest import parse
from fieldstation.pipeline.model import Counts, Message, ProcessType
from fieldstation.pipeline.node import Node
from fieldstation.pipeline.plan import make_plan
from fieldstation.pipeline.wire import codec
from fieldstation.pipeline.wire.connection import connect
from fieldstation.pipeline.wire.provision import provision
from fieldstation.pipeline.wire.publisher import Publisher

NODES = Path(__file__).parent / "nodes"

CHAIN = """
version: v0.1.0
description: a chain
workflows:
  - name: flow
    type: data
    processes:
      - {name: door, type: trigger, image: x, subscriptions: [out]}
      - {name: mix, type: task, image: x, subscriptions: [door], objectStore: {name: pics}}
      - {name: out, type: exit, image: x, subscriptions: [mix]}
"""
STREAM = "demo_v0_1_0_flow"


async def eventually(check, deadline_s=60.0):
    """Wait until `check()` (sync or async) is true and return what it returned."""
    deadline = time.monotonic() + deadline_s
    while True:
        result = check()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


class Rig:
    """One provisioned pipeline on one or several servers, and what tests do with it."""

    def __init__(self, brokers, folder, manifest, replicas, ack_wait_s):
        self.brokers = brokers
        self.folder = folder
        self.url = ",".join(broker.url for broker in brokers)
        self.plan = make_plan(parse(manifest), "demo", self.url)
        self.replicas = replicas
        self.ack_wait_s = ack_wait_s
        self.services = []
        self.children = []
        self.eventually = eventually

    async def open(self):
        self.publisher = None
        self.client = await connect(Nats(url=self.url), name="test", on_up=self._up, on_down=self._down)
        self.js = self.client.jetstream(timeout=10)
        await provision(self.js, self.plan, replicas=self.replicas, ack_wait_s=self.ack_wait_s)
        self.counts = Counts()
        self.publisher = Publisher(self.client, self.counts)
        await self.publisher.start()
        self._publishing = asyncio.create_task(self.publisher.run())

    async def _up(self):
        if self.publisher is not None:
            self.publisher.up()

    async def _down(self):
        if self.publisher is not None:
            self.publisher.down()

    async def close(self):
        for service, running in self.services:
            await service.stop()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        for child in self.children:
            await self.end(child)
        self._publishing.cancel()
        await asyncio.gather(self._publishing, return_exceptions=True)
        await self.client.close()

    def process(self, name):
        [found] = [process for process in self.plan.processes if process.name == name]
        return found

    def config(self, name, **runner):
        values = json.loads(json.dumps(self.process(name).config))
        values["nats"]["url"] = self.url
        values["runner"] = {
            "health": {"port": -1},
            "retry": {"initial": 0.01},
            "subscriber": {"ack_wait_time": f"{self.ack_wait_s}s", "drain_timeout": 2},
        }
        for key, part in runner.items():
            values["runner"].setdefault(key, {}).update(part)
        return values

    async def start(self, name, handler=None, *, node=None, **runner):
        """Start a node in this process; returns its service."""
        if node is None:
            node = Node(ProcessType(self.process(name).kind))
            if node.kind is ProcessType.TRIGGER:
                node.runner = handler or _idle
            else:
                node.handlers["default"] = handler or _echo
        service = build_service(node, build(self.config(name, **runner)))
        await service.start()
        self.services.append((service, asyncio.create_task(service.run())))
        return service

    async def stop(self, service):
        for entry in list(self.services):
            if entry[0] is service:
                self.services.remove(entry)
                await service.stop()
                entry[1].cancel()
                await asyncio.gather(entry[1], return_exceptions=True)

    async def spawn(self, name, file, *, env=None, **runner):
        """Start a node as a child process; returns it once it is ready."""
        folder = self.folder / f"{name}-{len(self.children)}"
        folder.mkdir()
        (folder / "app.yaml").write_text(json.dumps(self.config(name, **{"health": {"port": 0}, **runner})))
        with (folder / "log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "fieldstation.pipeline", str(NODES / file)),
                cwd=folder,
                env={**os.environ, "KAI_APP_CONFIG_PATH": str(folder), **(env or {})},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self.children.append(child)
        line = await asyncio.wait_for(child.stdout.readline(), 90)  # a node waits up to a minute for an election
        assert line.startswith(b"ready http://127.0.0.1:"), (folder / "log").read_text()
        child.url = line.decode().split()[1]
        return child

    async def end(self, child, how=signal.SIGKILL):
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(how)
        await asyncio.wait_for(child.wait(), 20)
        child._transport.close()

    async def collector(self, subject, name="collector"):
        """Keep everything published on `subject`; returns a function that reads what is there now."""
        stream = STREAM
        await self.js.add_consumer(
            stream,
            api.ConsumerConfig(
                durable_name=name,
                filter_subject=subject,
                ack_policy="explicit",
                deliver_policy="all",
                ack_wait=60,
                max_ack_pending=100_000,
            ),
        )
        got = []
        following = 1

        async def read():
            # Straight from the stream, where the consumer above (which nobody reads) holds everything: no delivery
            # of ours can be lost or repeated on the way into the test.
            nonlocal following
            while True:
                try:
                    msg = await self.js.get_msg(stream, seq=following, subject=subject, next=True)
                except NotFoundError:
                    return got
                except (APIError, nats.errors.Error, TimeoutError):
                    return got  # no leader just now
                got.append(codec.decode(msg.data, msg.subject, 10**8))
                following = msg.seq + 1

        return read

    async def feed(self, process, texts, *, channel=""):
        """Publish each text as a message of `process`, confirmed and exactly once, through whatever happens."""
        left = 0
        done = asyncio.Event()

        def confirmed(error):
            nonlocal left
            assert error is None, error
            left -= 1
            if not left:
                done.set()

        subject = f"{STREAM}.{process}.{channel}" if channel else f"{STREAM}.{process}"
        for text in texts:
            left += 1
            body = codec.encode(Message(f"id-{text}", codec.pack(StringValue(value=text)), "", process))
            self.publisher.send(subject, body, f"feed-{text}", confirmed)
            if left > 2000:
                await asyncio.sleep(0)
        await done.wait()


async def _echo(sdk, payload):
    return payload


async def _idle(requests, sdk):
    await asyncio.Event().wait()


def text_of(message):
    value = StringValue()
    message.payload.Unpack(value)
    return value.value


@pytest.fixture
def texts():
    return lambda messages: [text_of(message) for message in messages]


@pytest.fixture
async def rig(tmp_path):
    """`await rig(manifest=..., servers=1)` gives a Rig."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(manifest=CHAIN, *, servers=1, ack_wait_s=30.0, sync="10s"):
            ports = [free_port() for _ in range(servers)]
            routes = tuple(f"nats://127.0.0.1:{port}" for port in ports)
            brokers = []
            for number, port in enumerate(ports):
                settings = BrokerSettings(
                    tmp_path / f"nats{number}",
                    name=f"n{number}",
                    sync_interval=sync,
                    cluster_port=port if servers > 1 else 0,
                    routes=routes if servers > 1 else (),
                )
                broker = Broker(settings)
                await broker.start()
                stack.push_async_callback(broker.stop)
                brokers.append(broker)
            made = Rig(brokers, tmp_path, manifest, 3 if servers > 1 else 1, ack_wait_s)
            await made.open()
            stack.push_async_callback(made.close)
            return made

        yield make
