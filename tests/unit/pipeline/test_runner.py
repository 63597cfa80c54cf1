import asyncio
import gzip
import threading
import time

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from fieldstation import pipeline
from fieldstation.pipeline.errors import MessageTooLargeError, PublishError, RejectedError
from fieldstation.pipeline.model import Message, MessageType, ProcessType
from fieldstation.pipeline.node import Node
from fieldstation.pipeline.wire import codec
from fieldstation.testing.pipeline import run_node


def task_of(handler, **stages):
    node = Node(ProcessType.TASK, **stages)
    node.handlers["default"] = handler
    return node


async def test_what_a_handler_returns_is_sent_with_the_id_of_the_request():
    @pipeline.task
    async def shout(sdk, message: StringValue) -> StringValue:
        return StringValue(value=message.value.upper())

    async with run_node(shout, process="shout") as node:
        [output] = await node.send(StringValue(value="hello"), request_id="r-1")
    assert output.unpack(StringValue).value == "HELLO"
    assert (output.request_id, output.channel, output.message_type) == ("r-1", "", MessageType.OK)
    assert node.counts.succeeded == 1


async def test_an_any_may_be_returned_and_none_sends_nothing():
    async with run_node(task_of(lambda sdk, payload: payload)) as node:
        [output] = await node.send(Int64Value(value=7))
        assert output.unpack(Int64Value).value == 7
    async with run_node(task_of(lambda sdk, payload: None)) as node:
        assert await node.send(Int64Value(value=7)) == []


async def test_stages_run_in_order_with_the_same_payload():
    seen = []

    def stage(name):
        async def note(sdk, payload):
            seen.append((name, id(payload)))

        return note

    async with run_node(task_of(stage("handler"), preprocessor=stage("pre"), postprocessor=stage("post"))) as node:
        await node.send(StringValue(value="x"))
    assert [name for name, _ in seen] == ["pre", "handler", "post"]
    assert len({identity for _, identity in seen}) == 1


async def test_initializer_and_finalizer_run_once_and_may_be_sync():
    calls = []
    node = task_of(lambda sdk, payload: None, initializer=lambda sdk: calls.append("i"))
    node.finalizer = lambda sdk: calls.append("f")
    async with run_node(node) as running:
        await running.send(StringValue())
    assert calls == ["i", "f"]


async def test_the_senders_own_handler_is_chosen_whatever_its_case():
    node = task_of(lambda sdk, payload: StringValue(value="default"))
    node.handlers["etl"] = lambda sdk, payload: StringValue(value="etl")
    async with run_node(node) as running:
        [first] = await running.send(StringValue(), from_node="ETL")
        [second] = await running.send(StringValue(), from_node="other")
    assert (first.unpack(StringValue).value, second.unpack(StringValue).value) == ("etl", "default")


async def test_a_sync_handler_runs_in_a_thread_and_may_send_without_await():
    threads = []

    def handler(sdk, payload):
        threads.append(threading.current_thread() is threading.main_thread())
        sdk.messaging.send_output(StringValue(value="one"))
        sdk.messaging.send_output(StringValue(value="two"), "side")
        value, found = sdk.wait(sdk.centralized_config.get_config("gain"))
        return StringValue(value=f"{value} {found} {sdk.get_request_id()}")

    async with run_node(task_of(handler)) as node:
        await node.sdk.centralized_config.set_config("gain", "3")
        outputs = await node.send(StringValue(), request_id="r")
    assert threads == [False]
    assert [output.unpack(StringValue).value for output in outputs] == ["one", "two", "3 True r"]
    assert [output.channel for output in outputs] == ["", "side", ""]


async def test_an_error_reaches_the_handler_as_documented():
    seen = []

    async def handler(sdk, payload):
        seen.append((sdk.messaging.is_message_error(), sdk.messaging.get_error_message(), payload.type_url))

    async with run_node(task_of(handler)) as node:
        await node.send(error="it broke")
    assert seen == [(True, "it broke", "")]


async def test_unknown_message_types_reach_the_handler():
    seen = []

    async def handler(sdk, payload):
        messaging = sdk.messaging
        kinds = messaging.is_message_ok, messaging.is_message_error
        historic = messaging.is_message_early_reply, messaging.is_message_early_exit
        seen.append([kind() for kind in (*kinds, *historic)])

    async with run_node(task_of(handler)) as node:
        await node.send(StringValue(), message_type=77)
        await node.send(StringValue(), message_type=3)
        await node.send(StringValue(), message_type=4)
    assert seen == [[False] * 4, [False, False, True, False], [False, False, False, True]]


async def test_a_payload_that_is_packed_already_is_sent_as_it_is():
    async def handler(sdk, payload):
        await sdk.messaging.send_any(payload)
        await sdk.messaging.send_any_with_request_id(payload, "another", "side")

    async with run_node(task_of(handler)) as node:
        outputs = await node.send(StringValue(value="x"), request_id="r")
    assert [output.unpack(StringValue).value for output in outputs] == ["x", "x"]
    assert [(output.request_id, output.channel) for output in outputs] == [("r", ""), ("another", "side")]


async def test_a_deleted_setting_is_not_there_and_the_next_scope_is_asked():
    async with run_node(task_of(lambda sdk, payload: None)) as node:
        settings = node.sdk.centralized_config
        await settings.set_config("gain", "3")
        await settings.set_config("gain", "5", "product")
        assert await settings.delete_config("gain")
        assert await settings.get_config("gain") == ("5", True)
        assert not await settings.delete_config("gain")
        assert await settings.delete_config("gain", "product")
        assert await settings.get_config("gain") == (None, False)


async def test_historic_types_are_sent_as_their_numbers():
    async def handler(sdk, payload):
        await sdk.messaging.send_early_reply(StringValue())
        await sdk.messaging.send_early_exit(StringValue(), "out")

    async with run_node(task_of(handler)) as node:
        assert [output.message_type for output in await node.send(StringValue())] == [3, 4]


async def test_a_handler_that_raises_is_retried_then_told_and_kept():
    tries = []

    async def handler(sdk, payload):
        tries.append(1)
        raise ValueError("no luck")

    async with run_node(task_of(handler), process="etl") as node:
        [output] = await node.send(StringValue(), from_node="door", request_id="r")
    assert len(tries) == 3
    assert output.message_type == MessageType.ERROR
    assert output.error == "error in node door executing handler for node etl: no luck"
    assert (output.request_id, output.channel) == ("r", "")
    assert [letter.error for letter in node.dead_letters] == [output.error]
    assert (node.counts.failed, node.counts.retried, node.counts.dead) == (3, 2, 1)


@pytest.mark.parametrize("stage", ["preprocessor", "postprocessor"])
async def test_other_stages_fail_with_their_own_name(stage):
    def broken(sdk, payload):
        raise ValueError("x")

    node = task_of(lambda sdk, payload: None, **{stage: broken})
    async with run_node(node, process="me", settings={"attempts": 1}) as running:
        [output] = await running.send(StringValue(), from_node="you")
    assert output.error == f"error in node you executing handler {stage} for node me: x"


async def test_a_second_try_that_works_leaves_one_output_and_no_letter():
    tries = []

    async def handler(sdk, payload):
        await sdk.messaging.send_output(StringValue(value="kept"))
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")

    async with run_node(task_of(handler)) as node:
        outputs = await node.send(StringValue())
    # The redo made the same output under the same id, and the bus knew it already.
    assert [output.unpack(StringValue).value for output in outputs] == ["kept"]
    assert node.dead_letters == []


async def test_a_rejected_message_is_not_tried_again():
    tries = []

    async def handler(sdk, payload):
        tries.append(1)
        raise RejectedError(reason="no such device")

    async with run_node(task_of(handler)) as node:
        [output] = await node.send(StringValue())
    assert tries == [1]
    assert "no such device" in output.error


async def test_a_message_that_is_no_protobuf_is_told_once_without_a_foreign_id():
    async with run_node(task_of(lambda sdk, payload: None)) as node:
        await node.send(StringValue(), request_id="foreign")
        [output] = await node.send_raw(b"\xff\xff\xff")
    assert output.request_id == ""
    assert output.error.startswith(
        "error parsing message data coming from subject test_v0_0_1_test.before because is not a valid protobuf: "
        "error creating new request message: "
    )
    assert len(node.dead_letters) == 1


@pytest.mark.parametrize("body", [gzip.compress(b"x" * 100, mtime=0)[:-9], b"\x1f\x8b", b"\x1f\x8bgarbage", b"\x1f"])
async def test_broken_gzip_is_an_error_message_and_the_node_lives(body):
    async with run_node(task_of(lambda sdk, payload: payload)) as node:
        [output] = await node.send_raw(body)
        assert output.message_type == MessageType.ERROR
        [alive] = await node.send(StringValue(value="x"))
        assert alive.unpack(StringValue).value == "x"


async def test_a_gzip_bomb_is_refused_within_its_bound():
    bomb = gzip.compress(bytes(50_000_000), 9)
    async with run_node(task_of(lambda sdk, payload: None), settings={"max_inflated_bytes": 1_000_000}) as node:
        [output] = await node.send_raw(bomb)
    assert "unpacks to more than 1000000 bytes" in output.error


async def test_an_empty_body_is_an_empty_message_as_protobuf_says():
    seen = []
    async with run_node(task_of(lambda sdk, payload: seen.append(payload.type_url))) as node:
        await node.send_raw(b"")
    assert seen == [""]


async def test_a_payload_of_another_type_is_named():
    @pipeline.task
    async def handler(sdk, message: StringValue): ...

    async with run_node(handler) as node:
        [output] = await node.send(Int64Value(value=1))
        assert "The payload is a google.protobuf.Int64Value, and the handler takes a google.protobuf.StringValue" in (
            output.error
        )
        unknown = AnyMessage(type_url="type.googleapis.com/lab.Secret", value=b"abc")
        [output] = await node.send_raw(codec.encode(Message("r", unknown, "", "before")))
        assert "lab.Secret" in output.error


async def test_a_handler_that_returns_the_wrong_type_is_told_so():
    async with run_node(task_of(lambda sdk, payload: "text")) as node:
        [output] = await node.send(StringValue())
    assert "The handler returned a str" in output.error


async def test_a_handler_that_hangs_is_ended_and_its_message_kept():
    async def handler(sdk, payload):
        await asyncio.Event().wait()

    async with run_node(task_of(handler), settings={"handler_timeout": 0.05, "attempts": 1}) as node:
        [output] = await node.send(StringValue())
    assert "did not finish within 0.05 s" in output.error
    assert len(node.dead_letters) == 1


async def test_a_sync_handler_that_hangs_does_not_stop_the_others():
    stuck = threading.Event()

    def handler(sdk, payload):
        if payload.type_url.endswith("Int64Value"):
            stuck.wait(3)

    async with run_node(task_of(handler), settings={"handler_timeout": 0.05, "attempts": 1}) as node:
        for _ in range(3):
            [output] = await node.send(Int64Value())
            assert "did not finish" in output.error
        assert await node.send(StringValue()) == []
        stuck.set()


async def test_too_large_an_output_is_an_error_the_handler_sees():
    caught = []

    async def handler(sdk, payload):
        import os

        try:
            await sdk.messaging.send_output(StringValue(value=os.urandom(60_000).hex()))
        except MessageTooLargeError as error:
            caught.append(str(error))

    async with run_node(task_of(handler)) as node:
        node.bus.limit = 10_000
        assert await node.send(StringValue()) == []
    assert "sdk.storage.ephemeral.save" in caught[0]


async def test_an_output_above_the_limit_leaves_compressed():
    async with run_node(task_of(lambda sdk, payload: StringValue(value="a" * 50_000))) as node:
        node.bus.limit = 10_000
        [output] = await node.send(StringValue())
        assert output.unpack(StringValue).value == "a" * 50_000
        assert node.bus.published[-1].body[:2] == b"\x1f\x8b"


async def test_an_input_is_not_acknowledged_when_nothing_can_be_sent():
    async with run_node(task_of(lambda sdk, payload: StringValue())) as node:
        node.bus.refuse = PublishError(subject="x", problem="full")
        assert await node.send(StringValue()) == []
        assert len(node.bus.handed_back) == 1
        assert node.counts.succeeded == 0


async def test_a_channel_with_a_dot_is_refused_where_it_would_vanish():
    async def handler(sdk, payload):
        await sdk.messaging.send_output(StringValue(), "a.b")

    async with run_node(task_of(handler)) as node:
        [output] = await node.send(StringValue())
    assert "must be one word" in output.error


async def test_one_message_at_a_time_in_order_by_default():
    order = []

    async def handler(sdk, message: Int64Value):
        order.append(("in", message.value))
        await asyncio.sleep(0)
        order.append(("out", message.value))

    async with run_node(task_of(handler)) as node:
        for number in range(3):
            node.bus.inject("test_v0_0_1_test.before", codec.encode(Message("", codec.pack(Int64Value(value=number)))))
        await node.bus.quiet()
    assert order == [(way, number) for number in range(3) for way in ("in", "out")]


async def test_concurrent_handlers_keep_their_requests_apart():
    arrived = asyncio.Barrier(20)

    async def handler(sdk, payload):
        before = sdk.get_request_id()
        await arrived.wait()  # all twenty are inside their handler now
        assert sdk.get_request_id() == before
        await sdk.messaging.send_output(StringValue(value=before))

    async with run_node(task_of(handler), settings={"concurrency": 20}) as node:
        for number in range(20):
            body = codec.encode(Message(f"r{number}", codec.pack(StringValue()), "", "x"))
            node.bus.inject("test_v0_0_1_test.before", body)
        await node.bus.quiet()
        outputs = node.outputs
    assert {(output.request_id, output.unpack(StringValue).value) for output in outputs} == {
        (f"r{number}", f"r{number}") for number in range(20)
    }


async def test_outside_a_message_there_is_no_request_id_and_sending_makes_a_new_one():
    async with run_node(task_of(lambda sdk, payload: None)) as node:
        assert node.sdk.get_request_id() is None
        await node.sdk.messaging.send_output(StringValue())
        await node.sdk.messaging.send_output(StringValue())
        first, second = node.outputs
    assert first.request_id != second.request_id
    assert len(first.request_id) == 36


async def test_an_empty_request_id_becomes_a_new_one():
    async with run_node(task_of(lambda sdk, payload: payload)) as node:
        [output] = await node.send(StringValue(), request_id="")
    assert len(output.request_id) == 36


async def test_a_replay_makes_outputs_with_ids_of_their_own():
    working = []

    async def handler(sdk, payload):
        await sdk.messaging.send_output(StringValue(value="done"))
        if not working:
            raise ValueError("broken")

    async with run_node(task_of(handler), settings={"attempts": 1}) as node:
        await node.send(StringValue())
        working.append(1)
        before = len(node.outputs)
        node.bus.replay(node.dead_letters[0])
        await node.bus.quiet()
        assert [output.unpack(StringValue).value for output in node.outputs[before:]] == ["done"]


async def test_a_message_that_kills_its_process_again_and_again_is_set_aside():
    from fieldstation.pipeline.model import Delivery, Origin

    started = []
    async with run_node(task_of(lambda sdk, payload: started.append(1))) as node:
        lane = node._service.runner.lanes[0]
        body = codec.encode(Message("r", codec.pack(StringValue())))
        lane.deliver(Delivery(body, Origin("c", 1, 99, "s"), deliveries=21))
        await node.next_output(0)
    assert started == []
    assert "never finished" in node.dead_letters[0].error


async def test_a_second_delivery_of_what_is_in_work_runs_once():
    from fieldstation.pipeline.model import Delivery, Origin

    gate = asyncio.Event()
    started = []

    async def handler(sdk, payload):
        started.append(1)
        await gate.wait()

    async with run_node(task_of(handler)) as node:
        lane = node._service.runner.lanes[0]
        body = codec.encode(Message("r", codec.pack(StringValue())))
        lane.deliver(Delivery(body, Origin("c", 1, 5, "s"), 1, "first"))
        await asyncio.sleep(0)
        lane.deliver(Delivery(body, Origin("c", 1, 5, "s"), 2, "second"))
        assert lane.held[5].delivery.reply == "second"
        gate.set()
        while lane.held:
            await asyncio.sleep(0)
    assert started == [1]
    assert node.counts.repeated == 1


async def test_stopping_hands_back_what_was_not_begun_and_finishes_what_was():
    gate = asyncio.Event()
    finished = []

    begun = asyncio.Event()

    async def handler(sdk, message: Int64Value):
        begun.set()
        await gate.wait()
        finished.append(message.value)

    async with run_node(task_of(handler)) as node:
        for number in range(5):
            body = codec.encode(Message("", codec.pack(Int64Value(value=number))))
            node.bus.inject("test_v0_0_1_test.before", body)
        await begun.wait()
        while node.counts.received < 5:
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, gate.set)
    assert finished == [0]
    assert len(node.bus.handed_back) == 4


async def test_a_handler_that_does_not_end_in_time_is_handed_back_at_stop():
    async def handler(sdk, payload):
        await asyncio.Event().wait()

    async with run_node(task_of(handler), settings={"drain_timeout": 0.05}) as node:
        node.bus.inject("test_v0_0_1_test.before", codec.encode(Message("", codec.pack(StringValue()))))
        while node.counts.received < 1:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(node.bus.handed_back) == 1


async def test_errors_are_passed_on_without_the_handler_when_asked():
    called = []
    node = task_of(lambda sdk, payload: called.append(1))
    async with run_node(node, settings={"forward_errors": True}) as running:
        [output] = await running.send(error="upstream broke", request_id="r")
    assert called == []
    assert (output.error, output.request_id) == ("upstream broke", "r")


async def test_a_handler_that_names_its_type_passes_errors_on_without_being_called():
    called = []

    @pipeline.task
    async def typed(sdk, message: StringValue):
        called.append(message)

    async with run_node(typed) as running:
        [output] = await running.send(error="upstream broke", request_id="r")
    assert called == running.dead_letters == []
    assert (output.error, output.request_id, output.message_type) == ("upstream broke", "r", 2)


async def test_a_burst_of_outputs_waits_for_the_broker():
    async def handler(sdk, payload):
        for number in range(2000):
            await sdk.messaging.send_output(Int64Value(value=number))

    async with run_node(task_of(handler)) as node:
        outputs = await node.send(StringValue())
    assert [output.unpack(Int64Value).value for output in outputs] == list(range(2000))
    assert len({output.message_id for output in outputs}) == 2000


async def test_a_blocked_loop_is_named_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr("fieldstation.pipeline.service.BLOCKED_S", 0.1)

    async def handler(sdk, payload):
        time.sleep(2.5)

    async with run_node(task_of(handler)) as node:
        await node.send(StringValue())
    assert "the event loop has stood still" in caplog.text
    assert "test_runner.py" in caplog.text


async def test_a_node_says_what_is_off_and_measures_when_it_has_where_to(caplog, monkeypatch):
    caplog.set_level("INFO")
    async with run_node(task_of(lambda sdk, payload: None)) as node:
        assert "persistent storage: local folder; predictions: local file; measurements: off" in caplog.text
        assert node._service.runner.observe is None
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from fieldstation.pipeline import measurements

    reader = InMemoryMetricReader()
    monkeypatch.setattr(measurements, "_otlp", lambda config: reader)
    async with run_node(
        task_of(lambda sdk, payload: None), values={"measurements": {"endpoint": "127.0.0.1:1"}}
    ) as node:
        await node.send(StringValue())
        assert "runner-process-message-metric" in reader.get_metrics_data().to_json()
