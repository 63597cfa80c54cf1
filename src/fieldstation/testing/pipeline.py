"""Test a node without a server: send a message to its handler, look at what it sends.

async def test_mix_shouts():
async with run_node(mix) as node:
[output] = await node.send(StringValue(value="hello"))
assert output.unpack(StringValue).value == "HELLO"
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.environment import build, process_of, with_settings
from fieldstation.pipeline.memory import DeadLetter, MemoryBus
from fieldstation.pipeline.model import Counts, Message, MessageType
from fieldstation.pipeline.node import Node
from fieldstation.pipeline.optional import services
from fieldstation.pipeline.service import NodeService
from fieldstation.pipeline.wire import codec

INPUT = "test_v0_0_1_test.before"
DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Output:
    """One message a node sent. `channel` is "" for its plain output; `payload` an Any, None on an ERROR."""

    channel: str
    request_id: str
    payload: Any
    error: str
    message_type: int
    message_id: str

    def unpack(self, wanted: Any) -> Any:
        """Return the payload as a message of class `wanted`; UnknownPayloadError when it is another."""
        return codec.unpack(self.payload, wanted)


class RunningNode:
    """A node at work on a bus in memory. `sdk` is what its callables get; `bus` has everything that happened."""

    def __init__(self, service: NodeService, bus: MemoryBus, output: str) -> None:
        self._service = service
        self._output = output
        self.bus = bus

    @property
    def sdk(self) -> ProcessContext:
        """The process context, to look at storage and configuration."""
        return self._service.sdk

    @property
    def counts(self) -> Counts:
        """What the node did."""
        return self._service.counts

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What the node gave up on."""
        return self.bus.dead

    @property
    def outputs(self) -> list[Output]:
        """Everything the node has sent."""
        return [self._read(index) for index in range(len(self.bus.published))]

    async def send(
        self,
        message: Any = None,
        *,
        from_node: str = "before",
        request_id: str | None = None,
        error: str = "",
        message_type: int | None = None,
    ) -> list[Output]:
        """Send a protobuf `message` (or, with `error`, an ERROR) to the node; return what it sent in answer.

        Returns when the message is settled, retries included; TimeoutError after five seconds.
        """
        kind = message_type if message_type is not None else MessageType.ERROR if error else MessageType.OK
        payload = codec.pack(message) if message is not None else None
        identity = str(uuid.uuid4()) if request_id is None else request_id
        return await self.send_raw(codec.encode(Message(identity, payload, error, from_node, kind)))

    async def send_raw(self, body: bytes) -> list[Output]:
        """Send bytes as they are: broken or compressed messages."""
        before = len(self.bus.published)
        self.bus.inject(INPUT, body)
        async with asyncio.timeout(DEADLINE_S):
            await self.bus.quiet()
        return [self._read(index) for index in range(before, len(self.bus.published))]

    async def next_output(self, number: int) -> Output:
        """Wait for output `number` (from 0): for triggers, which send on their own."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.bus.published) <= number:
                self.bus.sent.clear()
                await self.bus.sent.wait()
        return self._read(number)

    def _read(self, index: int) -> Output:
        published = self.bus.published[index]
        message = codec.decode(published.body, published.subject)
        channel = published.subject.removeprefix(self._output).removeprefix(".")
        return Output(
            channel, message.request_id, message.payload, message.error, message.message_type, published.message_id
        )


@contextlib.asynccontextmanager
async def run_node(
    node: Any,
    *,
    process: str = "node",
    settings: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
) -> AsyncIterator[RunningNode]:
    """Start a node (a decorated function, a runner's builder, or a Node) on a bus in memory; stop it at the end.

    `settings` are `runner.*` keys such as `attempts=1`; retries do not wait unless told. `values` is configuration
    in the shape of app.yaml.
    """
    found: Node = getattr(node, "node", node)
    config = _config(found, process, settings or {}, values or {})
    bus = MemoryBus()
    owner = process_of(config, found.kind)
    service = NodeService(found, owner, config, bus, codec, services(config, owner), Counts())
    await service.start()
    # Not a task group: a failed assertion in the test's block must reach pytest as it is.
    running = asyncio.create_task(service.run())
    try:
        yield RunningNode(service, bus, config.nats.output)
    finally:
        await service.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _config(node: Node, process: str, settings: Mapping[str, Any], values: Mapping[str, Any]) -> NodeConfig:
    base: dict[str, Any] = {
        "metadata": {
            "product_id": "test",
            "version_tag": "v0.0.1",
            "workflow_name": "test",
            "process_name": process,
            "process_type": node.kind.value,
        },
        "nats": {"url": "memory", "inputs": [INPUT], "object_store": "test"},
        "runner": {"health": {"port": -1}, "retry": {"initial": 0}, "subscriber": {"drain_timeout": 1}},
    }
    for key, value in values.items():
        base[key] = {**base.get(key, {}), **value}
    return with_settings(build(base), {**node.settings, **settings}, over=True)
