import asyncio

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from fieldstation import pipeline
from fieldstation.pipeline.errors import RequestFailedError, RequestTimeoutError
from fieldstation.testing.pipeline import run_node


async def asked(function):
    """Run `function(requests, sdk)` as a trigger whose requests are answered by echo; return what it returned."""
    results = asyncio.get_running_loop().create_future()

    @pipeline.trigger
    async def door(requests, sdk):
        try:
            results.set_result(await function(requests, sdk))
        except Exception as error:
            results.set_exception(error)

    async with run_node(door, process="door") as node:

        async def answer():
            number = 0
            while True:
                output = await node.next_output(number)
                number += 1
                if output.unpack(StringValue).value == "fail":
                    await node.send(error="no dose", request_id=output.request_id)
                elif output.unpack(StringValue).value != "silence":
                    await node.send(StringValue(value="re: ok"), request_id=output.request_id)

        answering = asyncio.create_task(answer())
        try:
            return await asyncio.wait_for(results, 5)
        finally:
            answering.cancel()


async def test_a_request_gets_its_response():
    async def function(requests, sdk):
        return await requests.request(StringValue(value="hello"))

    assert StringValue.FromString((await asked(function)).value).value == "re: ok"


async def test_the_documented_way_works_in_either_order():
    async def function(requests, sdk):
        await sdk.messaging.send_output_with_request_id(StringValue(value="a"), "one")
        first = await requests.get_response_channel("one")
        channel = requests.get_response_channel("two")
        await sdk.messaging.send_output_with_request_id(StringValue(value="b"), "two")
        return first, await channel

    first, second = await asked(function)
    assert first.type_url == second.type_url == "type.googleapis.com/google.protobuf.StringValue"


async def test_the_text_of_an_error_reaches_the_trigger():
    async def function(requests, sdk):
        return await requests.request(StringValue(value="fail"))

    with pytest.raises(RequestFailedError, match="no dose"):
        await asked(function)


async def test_an_error_has_an_empty_payload_on_the_documented_way_and_its_text_on_ours():
    async def function(requests, sdk):
        await sdk.messaging.send_output_with_request_id(StringValue(value="fail"), "one")
        payload = await requests.get_response_channel("one")
        await sdk.messaging.send_output_with_request_id(StringValue(value="fail"), "two")
        return payload, await requests.get_response("two")

    payload, message = await asked(function)
    assert payload.type_url == ""
    assert (message.error, message.message_type) == ("no dose", 2)


async def test_a_request_without_answer_ends_in_time():
    async def function(requests, sdk):
        return await requests.request(StringValue(value="silence"), timeout_s=0.05)

    with pytest.raises(RequestTimeoutError, match=r"within 0\.05 s"):
        await asked(function)


async def test_every_send_without_id_in_a_trigger_is_a_request_of_its_own():
    async def function(requests, sdk):
        await requests.request(StringValue(value="first"))
        await sdk.messaging.send_output(StringValue(value="second"))
        await sdk.messaging.send_output(StringValue(value="third"))

    collected = []

    @pipeline.trigger
    async def door(requests, sdk):
        for text in ("a", "b", "c"):
            await sdk.messaging.send_output(StringValue(value=text))

    async with run_node(door) as node:
        for number in range(3):
            collected.append((await node.next_output(number)).request_id)
    assert len(set(collected)) == 3


async def test_waiting_ends_with_none_when_the_node_stops():
    got = []

    @pipeline.trigger
    async def door(requests, sdk):
        got.append(await requests.get_response_channel("never"))

    async with run_node(door):
        await asyncio.sleep(0)
    assert got == [None]


async def test_a_sync_trigger_runs_in_a_thread():
    @pipeline.trigger
    def door(requests, sdk):
        sdk.wait(requests.request(StringValue(value="x"), timeout_s=None))

    async with run_node(door) as node:
        output = await node.next_output(0)
        await node.send(StringValue(), request_id=output.request_id)
