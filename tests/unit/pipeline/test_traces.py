"""A request is one trace: each node's span follows the one that sent to it."""

import asyncio

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fieldstation import pipeline
from fieldstation.pipeline import traces
from fieldstation.pipeline.model import Message
from fieldstation.pipeline.wire import codec
from fieldstation.pipeline.wire.deadletters import letter_headers, trace_of
from fieldstation.testing.pipeline import INPUT, run_node

INCOMING = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, PARENT = int(INCOMING.split("-")[1], 16), int(INCOMING.split("-")[2], 16)
ON = {"traces": {"endpoint": "127.0.0.1:1"}}
BODY = codec.encode(Message("r-1", codec.pack(StringValue(value="x")), "", "before"))


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(traces, "_otlp", lambda config: SimpleSpanProcessor(exporter))
    return exporter.get_finished_spans


async def sent_on(node, sends=1):
    """What the node's receivers get."""
    got = []
    await node.bus.subscribe("test_v0_0_1_test.node", "next", shared=True, deliver=got.append)
    node.bus.inject(INPUT, BODY, INCOMING)
    await node.bus.sent.wait()
    while len(got) < sends:
        await asyncio.sleep(0)
    return got


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_the_span_of_a_message_stands_between_its_sender_and_its_receivers(spans, kind):
    async def coroutine(sdk, payload):
        with sdk.traces.get_tracer().start_as_current_span("my own"):
            return payload

    def function(sdk, payload):
        with sdk.traces.get_tracer().start_as_current_span("my own"):
            return payload

    async with run_node(pipeline.task({"coroutine": coroutine, "function": function}[kind]), values=ON) as node:
        [delivery] = await sent_on(node)
        own, span = spans()
    assert span.name == f"process {INPUT}"
    assert (span.context.trace_id, span.parent.span_id) == (TRACE, PARENT)
    assert span.attributes["messaging.message.conversation_id"] == "r-1"
    assert (own.name, own.parent.span_id) == ("my own", span.context.span_id)
    assert delivery.trace == f"00-{TRACE:032x}-{span.context.span_id:016x}-01"


async def test_a_failure_is_seen_in_its_span_and_its_error_message_stays_in_the_trace(spans):
    def broken(sdk, payload):
        raise ValueError("too cold")

    async with run_node(pipeline.task(broken), values=ON, settings={"attempts": 1}) as node:
        [delivery] = await sent_on(node)
        [letter] = node.dead_letters
    [span] = spans()
    assert span.status.status_code is StatusCode.ERROR
    assert "too cold" in span.status.description
    assert delivery.trace == INCOMING
    # A dead letter remembers its trace for the day it is put back.
    assert trace_of(letter_headers("node", letter.delivery, "r-1", "too cold")) == INCOMING


async def test_what_nobody_asked_for_begins_a_trace_and_the_share_says_how_often(spans):
    async with run_node(pipeline.task(print), values=ON) as node:
        await node.sdk.messaging.send_output(StringValue(value="first"))
    assert [span.name for span in spans()] == ["send test_v0_0_1_test.node"]
    async with run_node(pipeline.task(print), values={"traces": {"endpoint": "127.0.0.1:1", "share": 0}}) as node:
        await node.sdk.messaging.send_output(StringValue(value="second"))
    assert len(spans()) == 1


async def test_without_an_endpoint_nothing_is_traced_and_the_header_is_not_passed_on(spans):
    async with run_node(pipeline.task(lambda sdk, payload: payload)) as node:
        [delivery] = await sent_on(node)
    assert spans() == ()
    assert delivery.trace == ""
