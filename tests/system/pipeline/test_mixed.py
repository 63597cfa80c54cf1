"""Our nodes beside nodes that speak as the published SDKs do: the spec's behaviour, written with plain nats-py."""

import asyncio
import gzip
import uuid
from collections import Counter

import nats
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.js import api

from fieldstation.pipeline.errors import ConsumerTakenError
from fieldstation.pipeline.wire import codec
from fieldstation.pipeline.wire.pb.kai_nats_msg_pb2 import KaiNatsMessage

pytestmark = pytest.mark.timeout(60)
STREAM = "demo_v0_1_0_flow"
DURABLE = f"{STREAM}-door-mix"
DAY_S = 22 * 3600


class PublishedNode:
    """One process as upstream's Python SDK runs it: a queue push consumer, one message at a time, acked at the end."""

    def __init__(self, url, name, inputs, *, queue=True, handler=None):
        self.url, self.name, self.inputs, self.queue = url, name, inputs, queue
        self.handler = handler or (lambda message: message.payload)
        self.seen = []

    async def __aenter__(self):
        self.client = await nats.connect(self.url)
        self.js = self.client.jetstream()
        for subject in self.inputs:
            durable = f"{subject.replace('.', '-')}-{self.name}"
            config = api.ConsumerConfig(deliver_policy=api.DeliverPolicy.NEW, ack_wait=DAY_S)
            if self.queue:
                await self.js.subscribe(subject, queue=durable, cb=self._cb, manual_ack=True, config=config)
            else:
                await self.js.subscribe(
                    subject, durable=f"{durable}{uuid.uuid4()}", cb=self._cb, manual_ack=True, config=config
                )
        return self

    async def __aexit__(self, *error):
        await self.client.close()

    async def _cb(self, msg):
        body = gzip.decompress(msg.data) if msg.data[:2] == b"\x1f\x8b" else msg.data
        message = KaiNatsMessage.FromString(body)
        self.seen.append(message)
        payload = self.handler(message)
        if payload is not None:
            await self.send(message.request_id, payload)
        await msg.ack()

    async def send(self, request_id, payload):
        out = KaiNatsMessage(request_id=request_id, from_node=self.name, message_type=1)
        out.payload.CopyFrom(payload)
        await self.js.publish(f"{STREAM}.{self.name}", out.SerializeToString())


async def test_a_published_task_stands_between_our_trigger_and_our_exit(rig):
    flow = await rig()
    answers = []

    async def door(requests, sdk):
        for number in range(10):
            answer = await requests.request(StringValue(value=str(number)))
            answers.append(StringValue.FromString(answer.value).value)

    await flow.js.delete_consumer(STREAM, DURABLE)
    async with PublishedNode(flow.url, "mix", [f"{STREAM}.door"]) as mix:
        await flow.start("out")
        await flow.start("door", door)
        await flow.eventually(lambda: len(answers) == 10)
    assert answers == [str(number) for number in range(10)]
    assert {message.from_node for message in mix.seen} == {"door"}


async def test_our_task_stands_between_a_published_trigger_and_a_published_exit(rig):
    flow = await rig()
    await flow.js.delete_consumer(STREAM, f"{STREAM}-mix-out")
    await flow.start("mix", lambda sdk, payload: payload)
    async with (
        PublishedNode(flow.url, "out", [f"{STREAM}.mix"]) as exit_node,
        PublishedNode(flow.url, "door", [f"{STREAM}.out"], queue=False, handler=lambda message: None) as door,
    ):
        payload = codec.pack(StringValue(value="x"))
        for number in range(10):
            await door.send(f"r{number}", payload)
        await flow.eventually(lambda: len(door.seen) == 10)
    assert {message.request_id for message in door.seen} == {f"r{number}" for number in range(10)}
    assert {message.from_node for message in exit_node.seen} == {"mix"}


@pytest.mark.parametrize("first", ["theirs", "ours"])
async def test_replicas_of_both_kinds_share_one_durable_whoever_came_first(rig, first):
    flow = await rig()
    await flow.js.delete_consumer(STREAM, DURABLE)
    theirs = PublishedNode(flow.url, "mix", [f"{STREAM}.door"], handler=lambda message: None)
    if first == "theirs":
        async with theirs:
            ours = await flow.start("mix", lambda sdk, payload: None)
            await share(flow, ours, theirs)
            assert (await flow.js.consumer_info(STREAM, DURABLE)).config.ack_wait == DAY_S
    else:
        ours = await flow.start("mix", lambda sdk, payload: None, subscriber={"ack_wait_time": 22})
        async with theirs:
            await share(flow, ours, theirs)
            config = (await flow.js.consumer_info(STREAM, DURABLE)).config
            assert (config.ack_wait, config.deliver_group) == (DAY_S, DURABLE)
            assert config.deliver_policy == api.DeliverPolicy.NEW


async def share(flow, ours, theirs):
    await flow.feed("door", [str(number) for number in range(200)])
    await flow.eventually(lambda: ours.counts.succeeded + len(theirs.seen) == 200)
    assert ours.counts.succeeded > 20
    assert len(theirs.seen) > 20
    assert max(Counter(message.request_id for message in theirs.seen).values()) == 1


async def test_stopping_our_replica_leaves_the_shared_durable_alone(rig):
    flow = await rig()
    ours = await flow.start("mix")
    await flow.stop(ours)
    assert (await flow.js.consumer_info(STREAM, DURABLE)).name == DURABLE


async def test_a_pull_consumer_under_our_name_is_refused_and_left_alone(rig):
    flow = await rig()
    await flow.js.delete_consumer(STREAM, DURABLE)
    await flow.js.add_consumer(
        STREAM, api.ConsumerConfig(durable_name=DURABLE, filter_subject=f"{STREAM}.door", ack_policy="explicit")
    )
    with pytest.raises(ConsumerTakenError, match="pull consumer"):
        await flow.start("mix")
    assert (await flow.js.consumer_info(STREAM, DURABLE)).config.deliver_subject is None


async def test_a_consumer_with_another_subject_is_refused(rig):
    flow = await rig()
    await flow.js.delete_consumer(STREAM, DURABLE)
    await flow.js.add_consumer(
        STREAM,
        api.ConsumerConfig(
            durable_name=DURABLE,
            filter_subject=f"{STREAM}.out",
            deliver_subject="d",
            deliver_group=DURABLE,
            ack_policy="explicit",
        ),
    )
    with pytest.raises(ConsumerTakenError, match=f"reads '{STREAM}.out'"):
        await flow.start("mix")


async def test_headers_of_others_are_ignored(rig):
    flow = await rig()
    service = await flow.start("mix")
    await flow.js.publish(f"{STREAM}.door", b"", headers={"Foo": "bar"})
    await flow.eventually(lambda: service.counts.succeeded == 1)


async def test_a_published_trigger_gets_compressed_messages_it_can_read(rig):
    flow = await rig()
    large = "abc" * 1_000_000
    await flow.start("out", lambda sdk, payload: StringValue(value=large))
    async with PublishedNode(flow.url, "door", [f"{STREAM}.out"], queue=False, handler=lambda m: None) as door:
        await flow.feed("mix", ["x"])
        await flow.eventually(lambda: door.seen)
    value = StringValue()
    door.seen[0].payload.Unpack(value)
    assert value.value == large


async def test_gathered_replicas_all_bind_to_one_deliver_subject(rig):
    flow = await rig()
    await flow.js.delete_consumer(STREAM, DURABLE)
    await asyncio.gather(*(flow.start("mix") for _ in range(5)))
    info = await flow.js.consumer_info(STREAM, DURABLE)
    assert info.config.deliver_subject == f"fieldstation.deliver.{DURABLE}"
