"""A round trip through a graph on a real NATS is one trace at an OTLP collector."""

import asyncio

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from fieldstation.pipeline.compose import build_service
from fieldstation.pipeline.environment import build
from fieldstation.pipeline.model import ProcessType
from fieldstation.pipeline.node import Node

STREAM = "demo_v0_1_0_flow"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans = []

    async def Export(self, request, context):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.mark.timeout(120)
async def test_a_round_trip_is_one_trace_from_the_trigger_back_to_the_trigger(rig):
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    flow = await rig()
    answered = asyncio.get_running_loop().create_future()

    async def ask(requests, sdk):
        answered.set_result(await requests.request(StringValue(value="x"), 60))

    async def start(name, callback):
        node = Node(ProcessType(flow.process(name).kind))
        if node.kind is ProcessType.TRIGGER:
            node.runner = callback
        else:
            node.handlers["default"] = callback
        values = {**flow.config(name), "traces": {"endpoint": f"127.0.0.1:{port}"}}
        service = build_service(node, build(values))
        await service.start()
        flow.services.append((service, asyncio.create_task(service.run())))
        return service

    async def echo(sdk, payload):
        return payload

    services = [await start("out", echo), await start("mix", echo), await start("door", ask)]
    await answered
    for service in services:
        await flow.stop(service)  # which sends what is traced and not sent yet
    await server.stop(None)
    spans = {span.name: span for span in collector.spans}
    steps = [spans[f"{word} {STREAM}.{name}"] for word, name in (
        ("send", "door"), ("process", "door"), ("process", "mix"), ("process", "out")
    )]  # fmt: skip
    assert len({span.trace_id for span in collector.spans}) == 1
    assert [span.parent_span_id for span in steps] == [b"", *(span.span_id for span in steps[:3])]
