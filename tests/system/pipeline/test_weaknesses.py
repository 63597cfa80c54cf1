"""Each weakness of today's SDKs that the specification lists (its section 12), with the number it has there."""

import asyncio
import functools
import gzip
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from fieldstation.pipeline.errors import MessageTooLargeError, ObjectExistsError, RequestFailedError
from fieldstation.pipeline.memory import MemoryBus
from fieldstation.pipeline.model import Message, ProcessType
from fieldstation.pipeline.node import Node
from fieldstation.pipeline.wire import codec
from fieldstation.testing.pipeline import INPUT, run_node

pytestmark = pytest.mark.timeout(60)
STREAM = "demo_v0_1_0_flow"
MIX = f"{STREAM}-door-mix"


def task_of(handler):
    node = Node(ProcessType.TASK)
    node.handlers["default"] = handler
    return node


async def pending(flow, consumer=MIX):
    info = await flow.js.consumer_info(STREAM, consumer)
    return info.num_pending + info.num_ack_pending


async def test_weakness_01_an_input_whose_output_cannot_be_published_is_kept(rig, texts):
    flow = await rig()
    collected = await flow.collector(f"{STREAM}.mix")
    config = (await flow.js.stream_info(STREAM)).config
    service = await flow.start("mix", lambda sdk, payload: StringValue(value=os.urandom(2000).hex()))
    # The stream refuses what is so large from now on, though the node was told otherwise when it started.
    await flow.js.update_stream(config.evolve(max_msg_size=500))
    await flow.feed("door", ["kept"])
    await flow.eventually(lambda: service.counts.dead == 1)
    [answer] = await flow.eventually(collected)
    assert answer.message_type == 2
    assert service.counts.succeeded == 0
    info = await flow.js.stream_info(f"{STREAM}_dead-letters")
    assert info.state.messages == 1


async def test_weakness_02_the_error_is_stored_before_the_input_is_acknowledged(monkeypatch):
    events = []
    send, acknowledge = MemoryBus.send, MemoryBus.acknowledge

    def noting_send(self, subject, body, message_id, done, headers=None):
        def confirmed(error):
            events.append("confirmed")
            done(error)

        events.append("sent")
        send(self, subject, body, message_id, confirmed, headers)

    def noting_acknowledge(self, delivery):
        events.append("acknowledged")
        acknowledge(self, delivery)

    monkeypatch.setattr(MemoryBus, "send", noting_send)
    monkeypatch.setattr(MemoryBus, "acknowledge", noting_acknowledge)

    async def broken(sdk, payload):
        raise ValueError

    async with run_node(task_of(broken), settings={"attempts": 1}) as node:
        await node.send(StringValue())
    assert events == ["sent", "confirmed", "acknowledged"]


async def test_weakness_03_a_crash_is_redone_soon_and_long_work_is_not_doubled(rig, tmp_path):
    flow = await rig(ack_wait_s=1.0)
    begun = tmp_path / "begun"
    child = await flow.spawn("mix", "slow.py", env={"BEGUN": str(begun)})
    await flow.feed("door", ["x"])
    await flow.eventually(begun.exists)
    await asyncio.sleep(2.5)  # two and a half ack waits of work: the renewals keep it where it is
    assert (await flow.js.consumer_info(STREAM, MIX)).delivered.consumer_seq == 1
    await flow.end(child, signal.SIGKILL)
    rescuer = await flow.start("mix")
    await flow.eventually(lambda: rescuer.counts.succeeded == 1)


async def test_weakness_04_a_stop_gives_prefetched_messages_back_and_lets_work_finish(rig):
    flow = await rig(ack_wait_s=60.0)
    finished = []

    async def slow(sdk, message: StringValue):
        await asyncio.sleep(0.3)
        finished.append(message.value)

    first = await flow.start("mix", slow)
    await flow.feed("door", [str(number) for number in range(500)])
    await flow.eventually(lambda: first.counts.received == 500)
    await flow.stop(first)
    assert len(finished) == first.counts.succeeded
    second = await flow.start("mix")
    await flow.eventually(lambda: second.counts.succeeded == 500 - len(finished))


async def test_weakness_05_a_crash_between_publish_and_ack_publishes_nothing_twice(rig, texts):
    flow = await rig(ack_wait_s=1.0)
    collected = await flow.collector(f"{STREAM}.mix")
    service = await flow.start("mix")
    service._bus.acknowledge = lambda delivery: None  # it "dies" each time just before the acknowledgement
    await flow.feed("door", ["a", "b"])
    await flow.eventually(lambda: service.counts.succeeded >= 4)
    assert service.counts.duplicates >= 2
    assert sorted(texts(await collected())) == ["a", "b"]


async def test_weakness_06_the_replica_that_made_the_durable_does_not_delete_it(rig):
    flow = await rig()
    await flow.js.delete_consumer(STREAM, MIX)
    creator = await flow.start("mix")
    other = await flow.start("mix")
    await flow.stop(creator)
    await flow.feed("door", ["x"])
    await flow.eventually(lambda: other.counts.succeeded == 1)


async def test_weakness_07_failures_are_retried_with_back_off_then_kept_as_dead_letters():
    tries = []

    async def broken(sdk, payload):
        tries.append(time.monotonic())
        raise ValueError("no")

    async with run_node(task_of(broken), settings={"attempts": 3, "initial": 0.1}) as node:
        await node.send(StringValue())
    first, second, third = tries
    assert third - second > second - first > 0
    assert len(node.dead_letters) == 1


async def test_weakness_08_nothing_published_before_a_task_runs_is_lost(rig):
    flow = await rig()
    await flow.feed("door", [str(number) for number in range(100)])  # no node has ever run
    service = await flow.start("mix")
    await flow.eventually(lambda: service.counts.succeeded == 100)


async def test_weakness_09_triggers_leave_no_durable_behind(rig):
    flow = await rig()
    await flow.start("out")
    before = {info.name for info in await flow.js.consumers_info(STREAM)}
    stopped = await flow.start("door")
    [own] = {info.name for info in await flow.js.consumers_info(STREAM)} - before
    assert own.startswith(f"{STREAM}-out-door-")
    # A trigger that crashes cannot delete it; the server does, minutes later, by this setting.
    assert (await flow.js.consumer_info(STREAM, own)).config.inactive_threshold == 300
    await flow.stop(stopped)
    assert {info.name for info in await flow.js.consumers_info(STREAM)} == before


async def test_weakness_10_replicas_started_together_all_work_and_sync_handlers_do_not_block(rig):
    flow = await rig()
    await flow.js.delete_consumer(STREAM, MIX)
    replicas = await asyncio.gather(*(flow.start("mix", lambda sdk, payload: time.sleep(0.01)) for _ in range(4)))
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    await flow.feed("door", [str(number) for number in range(200)])
    await flow.eventually(lambda: sum(service.counts.succeeded for service in replicas) == 200)
    turning.cancel()
    assert all(service.counts.succeeded for service in replicas)
    # While 200 handlers slept in their threads, the loop they share kept turning.
    assert turns > 50


async def test_weakness_10_concurrency_is_a_setting():
    together = asyncio.Barrier(8)

    async def handler(sdk, payload):
        await together.wait()

    async with run_node(task_of(handler), settings={"concurrency": 8}) as node:
        for _ in range(8):
            node.bus.inject(INPUT, codec.encode(Message("", None)))
        async with asyncio.timeout(5):
            await node.bus.quiet()


async def test_weakness_11_what_waits_behind_a_slow_message_goes_to_an_idle_replica(rig):
    flow = await rig()
    gate = asyncio.Event()

    async def stuck(sdk, payload):
        await gate.wait()

    busy = await flow.start("mix", stuck, subscriber={"hand_back_after": 0.3, "max_deliveries": 100})
    await flow.feed("door", ["slow", "quick"])
    await flow.eventually(lambda: busy.counts.received == 2)
    idle = await flow.start("mix")
    await flow.eventually(lambda: idle.counts.succeeded == 1)
    gate.set()


async def test_weakness_12_confirmations_are_awaited_together_and_the_stream_is_not_asked_each_time(rig):
    flow = await rig()
    service = await flow.start("mix")
    asked = []
    watch = await flow.client.subscribe("$JS.API.STREAM.INFO.>", cb=functools.partial(_note, asked))
    await flow.feed("door", [str(number) for number in range(500)])
    highest = 0

    def done():
        nonlocal highest
        highest = max(highest, service._bus._publisher.unconfirmed)
        return service.counts.succeeded == 500

    deadline = time.monotonic() + 50
    while not done():
        await asyncio.sleep(0)
        assert time.monotonic() < deadline
    await watch.unsubscribe()
    assert highest > 1
    assert asked == []


async def _note(asked, msg):
    asked.append(msg.subject)


async def test_weakness_13_a_sender_waits_for_the_broker_and_nothing_overflows(rig, texts):
    flow = await rig()
    collected = await flow.collector(f"{STREAM}.door")
    sent = asyncio.Event()
    highest = 0

    async def door(requests, sdk):
        nonlocal highest
        for number in range(1000):
            await sdk.messaging.send_output(StringValue(value=str(number)))
            highest = max(highest, service._bus._publisher.unconfirmed)
        sent.set()

    await asyncio.sleep(0)
    node = Node(ProcessType.TRIGGER, runner=door)
    service = await flow.start("door", node=node)
    await flow.eventually(sent.is_set)
    assert highest <= 1  # outside a message awaiting a send waits for its confirmation
    assert len(await collected()) == 1000


async def test_weakness_14_no_log_line_per_message_at_info(rig, caplog):
    caplog.set_level("INFO")
    flow = await rig()
    service = await flow.start("mix")
    caplog.clear()
    await flow.feed("door", [str(number) for number in range(100)])
    await flow.eventually(lambda: service.counts.succeeded == 100)
    assert caplog.records == []


def test_weakness_15_a_start_imports_and_needs_no_optional_service():
    code = (
        "import sys; import fieldstation.pipeline.compose;"
        "optional = ('boto3', 'redis', 'opentelemetry.sdk', 'prometheus_client', 'loguru', 'yaml');"
        "print([name for name in optional if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


async def test_weakness_15_a_node_starts_without_storage_and_says_so_when_it_is_used(rig):
    flow = await rig()
    service = await flow.start("out")  # it has no object store, S3, Redis or metrics endpoint
    with pytest.raises(Exception, match="undefined ephemeral storage"):
        await service.sdk.storage.ephemeral.list()


async def test_weakness_16_each_message_keeps_its_own_request_id():
    together = asyncio.Barrier(4)

    async def handler(sdk, payload):
        await together.wait()
        return StringValue(value=sdk.get_request_id())

    async with run_node(task_of(handler), settings={"concurrency": 4}) as node:
        for number in range(4):
            node.bus.inject(INPUT, codec.encode(Message(f"r{number}", None)))
        await node.bus.quiet()
        assert all(output.unpack(StringValue).value == output.request_id for output in node.outputs)


async def test_weakness_16_a_trigger_does_not_reuse_the_id_of_the_last_response():
    async def door(requests, sdk):
        await requests.request(StringValue())
        await sdk.messaging.send_output(StringValue())

    async with run_node(Node(ProcessType.TRIGGER, runner=door)) as node:
        first = await node.next_output(0)
        await node.send(StringValue(), request_id=first.request_id)
        assert (await node.next_output(1)).request_id != first.request_id


@pytest.mark.parametrize("body", [b"\xff", b"\x1f", b"\x1f\x8b", gzip.compress(b"abc" * 50, mtime=0)[:20]])
async def test_weakness_17_an_unreadable_input_is_told_without_a_foreign_id_and_kills_nobody(body):
    async with run_node(task_of(lambda sdk, payload: payload)) as node:
        await node.send(StringValue(), request_id="foreign")
        [error] = await node.send_raw(body)
        assert (error.request_id, error.message_type) == ("", 2)
        assert len(await node.send(StringValue())) == 1


async def test_weakness_18_errors_may_short_circuit():
    async with run_node(task_of(lambda sdk, payload: payload), settings={"forward_errors": True}) as node:
        [output] = await node.send(error="broke far away", request_id="r")
    assert (output.error, output.request_id) == ("broke far away", "r")


async def test_weakness_18_a_trigger_sees_the_text_of_an_error(rig):
    flow = await rig()
    told = []

    async def fails(sdk, payload):
        raise ValueError("the beam is off")

    async def door(requests, sdk):
        try:
            await requests.request(StringValue())
        except RequestFailedError as error:
            told.append(str(error))

    passing = Node(ProcessType.EXIT)
    passing.handlers["default"] = lambda sdk, payload: None
    await flow.start("out", node=passing, retry={"forward_errors": True})
    await flow.start("mix", fails, retry={"attempts": 1})
    await flow.start("door", door)
    await flow.eventually(lambda: told)
    assert "the beam is off" in told[0]


async def test_weakness_19_waiting_for_a_response_has_a_time_out_no_leak_and_no_race():
    results = []

    async def door(requests, sdk):
        await sdk.messaging.send_output_with_request_id(StringValue(), "early")
        await answered.wait()
        results.append(await requests.get_response_channel("early"))
        results.append((await requests.get_response("early")).from_node)
        try:
            await requests.request(StringValue(), timeout_s=0.01)
        except Exception as error:
            results.append(type(error).__name__)
        done.set()

    answered, done = asyncio.Event(), asyncio.Event()
    async with run_node(Node(ProcessType.TRIGGER, runner=door)) as node:
        await node.next_output(0)
        await node.send(StringValue(value="first"), request_id="early")
        await node.send(StringValue(value="second"), request_id="early", from_node="late")
        answered.set()
        await done.wait()
        assert len(node._service.runner.responses) == 1
    assert results[1:] == ["late", "RequestTimeoutError"]


async def test_weakness_20_a_handler_has_a_deadline():
    async def hangs(sdk, payload):
        await asyncio.Event().wait()

    async with run_node(task_of(hangs), settings={"handler_timeout": 0.05, "attempts": 1}) as node:
        [output] = await node.send(StringValue())
    assert "did not finish within" in output.error


async def test_weakness_21_a_gzip_bomb_is_bounded():
    async with run_node(task_of(lambda sdk, payload: None), settings={"max_inflated_bytes": 100_000}) as node:
        [output] = await node.send_raw(gzip.compress(bytes(100_000_000)))
    assert "100000 bytes and is refused" in output.error


async def test_weakness_21_a_payload_over_the_limit_has_a_way_through_the_object_store(rig):
    flow = await rig()
    big = os.urandom(3_000_000)
    got = []

    async def door(requests, sdk):
        with pytest.raises(MessageTooLargeError, match=r"sdk\.storage\.ephemeral\.save"):
            await sdk.messaging.send_output(StringValue(value=big.hex()))
        await sdk.messaging.send_output(StringValue(value="big"))

    async def mix(sdk, message: StringValue):
        await sdk.storage.ephemeral.save(message.value, big, overwrite=True)
        got.append(await sdk.storage.ephemeral.get(message.value))

    await flow.start("mix", mix)
    await flow.start("door", door)
    await flow.eventually(lambda: got)
    assert got == [(big, True)]


async def test_weakness_22_purge_works_and_save_without_overwrite_is_atomic(rig):
    flow = await rig()
    storage = (await flow.start("mix")).sdk.storage.ephemeral
    results = await asyncio.gather(
        *(storage.save("one", str(number).encode()) for number in range(10)), return_exceptions=True
    )
    assert [type(result) for result in results].count(type(None)) == 1
    assert sum(isinstance(result, ObjectExistsError) for result in results) == 9
    winner = results.index(None)
    assert await storage.get("one") == (str(winner).encode(), True)
    await storage.save("two", b"2")
    await storage.save("empty", b"")
    assert await storage.get("empty") == (b"", True)
    assert sorted(await storage.list("o$|^on")) == ["one", "two"]
    await storage.purge("^t")
    assert sorted(await storage.list()) == ["empty", "one"]
    await storage.purge()
    assert await storage.list() == []
    assert await storage.get("one") == (None, False)
    assert not await storage.delete("one")
    await storage.save("one", b"again")
    assert await storage.get("one") == (b"again", True)


async def test_weakness_23_configuration_is_cached_watched_typed_and_survives_a_restart(rig):
    flow = await rig()
    flow.process("mix").config["centralized_configuration"]["process"]["config"] = {"gain": "3"}
    first = await flow.start("mix")
    second = await flow.start("mix")
    assert await second.sdk.centralized_config.get("gain", int) == 3
    seen = []

    async def watch():
        async for value in second.sdk.centralized_config.watch("gain"):
            seen.append(value)

    watching = asyncio.create_task(watch())
    await flow.eventually(lambda: seen == ["3"])
    await first.sdk.centralized_config.set_config("gain", "7")
    await flow.eventually(lambda: seen == ["3", "7"])
    watching.cancel()
    asked = []
    spy = await flow.client.subscribe("$JS.API.DIRECT.GET.>", cb=functools.partial(_note, asked))
    for _ in range(50):
        await second.sdk.centralized_config.get_config("gain")
    await flow.client.flush()
    await spy.unsubscribe()
    assert asked == []
    await flow.stop(first)
    third = await flow.start("mix")  # its file still says 3, as at its last start
    assert await third.sdk.centralized_config.get_config("gain") == ("7", True)


async def test_weakness_24_metrics_have_few_series_and_no_request_id():
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from fieldstation.pipeline.environment import build, process_of
    from fieldstation.pipeline.measurements import HISTOGRAM, Measurements

    config = build(
        {
            "metadata": {"product_id": "p", "version_tag": "v1.0.0", "workflow_name": "w", "process_name": "n"},
            "nats": {"url": "x"},
        }
    )
    reader = InMemoryMetricReader()
    measurements = Measurements(config, process_of(config, ProcessType.TASK), reader)
    for _ in range(100):
        measurements.handled(3)
    data = json.loads(reader.get_metrics_data().to_json())
    [metric] = data["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    assert metric["name"] == HISTOGRAM
    [point] = metric["data"]["data_points"]
    assert set(point["attributes"]) == {"product", "version", "workflow", "process"}
    measurements.close()


# 25, no authentication or TLS for NATS: see test_bad_brokers.py, which has the servers for it.


def test_weakness_26_find_returns_every_prediction(tmp_path):
    import datetime

    from fieldstation.pipeline.model import Process
    from fieldstation.pipeline.predictions import Filter, Predictions, TimestampRange
    from fieldstation.pipeline.sqlite_table import SqliteTable

    predictions = Predictions(SqliteTable(tmp_path / "p.sqlite"), Process("p", "v1.0.0", "w", "n", ProcessType.TASK))
    for number in range(25):
        predictions.save(str(number), {"value": number})
    now = datetime.datetime.now(datetime.UTC)
    span = TimestampRange(now - datetime.timedelta(hours=1), now + datetime.timedelta(hours=1))
    assert len(predictions.find(Filter(span))) == 25
