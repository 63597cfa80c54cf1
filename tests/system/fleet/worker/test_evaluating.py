"""What a holder gets from its devices: results that can be told apart by file and by board."""

import asyncio
import json

import pytest

from fieldstation.fleet.sim import answer, samples
from fieldstation.fleet.states.variance import fitness
from fieldstation.testing import eventually

pytestmark = [pytest.mark.timeout(30), pytest.mark.asyncio(loop_scope="module")]

A, B = "1111111111111111", "2222222222222222"


async def test_each_result_belongs_to_its_file_and_its_board(fleet):
    _, token = await fleet.control.assign(A, B)
    async with fleet.hold(token) as holder:
        await asyncio.gather(holder.until("initialized", A), holder.until("initialized", B))
        assert await holder.evaluate([A, B], 1, 2, 3) == {"ok": True, "refused": {}}
        for serial in (A, B):
            expected = {str(n): str(answer(holder.bitstream(n), serial)) for n in (1, 2, 3)}
            assert await holder.until_results(serial, 3) == expected
        assert {item["batch_id"] for item in holder.of("results")} == {"b"}


async def test_results_of_two_batches_do_not_mix(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.evaluate(A, 1, 2, batch="one")
        await holder.evaluate(A, 3, 4, batch="two")
        await holder.until_results(A, 4)
        for item in holder.of("results"):
            assert {key for key, _ in item["results"]} <= ({"1", "2"} if item["batch_id"] == "one" else {"3", "4"})


@pytest.mark.parametrize("send_waveform", [False, True])
async def test_variance_is_the_fitness_of_the_samples(fleet, send_waveform):
    _, token = await fleet.control.assign(A, kind="variance", send_waveform=send_waveform)
    async with fleet.hold(token) as holder:
        await holder.evaluate(A, 7)
        taken = samples(holder.bitstream(7), A)
        expected = [fitness(taken), taken] if send_waveform else fitness(taken)
        assert await holder.until_results(A, 1) == {"7": expected}


async def test_requests_sent_before_the_device_is_ready_wait_for_it(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.evaluate(A, 1)
        await holder.until_results(A, 1)


async def test_a_repeated_evaluation_is_answered_again_and_not_measured_again(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.evaluate(A, 1)
        first = await holder.until_results(A, 1)
        seen = len(holder.of("results"))
        await holder.evaluate(A, 1)
        await eventually(lambda: len(holder.of("results")) > seen)
        assert holder.results(A) == first


async def test_reboot_keeps_the_queue_and_says_initialized_again(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        await holder.evaluate(A, *range(40))
        assert await fleet.control.call("reboot", {"serial": A}) == {"ok": True}
        await holder.until_results(A, 40)
        await eventually(lambda: len(holder.of("initialized", A)) == 2)


# Published clients


async def test_a_published_client_hears_initialized_late_and_again_until_it_asks_for_something(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token, ours=False) as holder:
        started = asyncio.get_running_loop().time()
        await eventually(lambda: len(holder.of("initialized")) >= 2)
        first, second = (at for at, _, item in holder.events if item["event"] == "initialized")
        assert first - started >= 0.29
        assert second - first >= 0.45
        await holder.evaluate(A, 1)
        await holder.until_results(A, 1)
        # The next repeat would come one second after the second.
        with pytest.raises(AssertionError):
            await eventually(lambda: len(holder.of("initialized")) > 2, 1.5)


async def test_long_polling_and_json_with_cp437_files_work(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token, ours=False, transports=("polling",)) as holder:
        assert holder.sio.transport() == "polling"
        await holder.until("initialized", A)
        text = holder.bitstream(9).decode("cp437")
        contents = {"files": {"9": text}, "batch_id": "b"}
        await holder.sio.emit("request", json.dumps({"serial": A, "event": "evaluate", "contents": contents}))
        assert await holder.until_results(A, 1) == {"9": str(answer(holder.bitstream(9), A))}


async def test_polling_upgrades_to_websocket(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token, ours=False, transports=("polling", "websocket")) as holder:
        await eventually(lambda: holder.sio.transport() == "websocket")
        await holder.evaluate(A, 1)
        await holder.until_results(A, 1)


# Delivery


async def test_a_holder_that_comes_back_gets_what_it_missed(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        await holder.evaluate(A, *range(30))
    async with fleet.hold(token) as again:
        seen = {**holder.results(A), **await again.until_results(A, 30 - len(holder.results(A)))}
        assert len(seen) == 30


async def test_what_is_not_confirmed_is_sent_again(fleet):
    _, token = await fleet.control.assign(A)
    async with fleet.hold(token) as deaf:
        deaf.deaf = True
        await deaf.evaluate(A, 1)
        async with fleet.hold(token) as second:
            # The worker sends to the newest socket; what the deaf one swallowed comes when that is gone.
            await deaf.sio.disconnect()
            await second.until_results(A, 1)


async def test_results_finished_when_the_reservation_ends_are_delivered(fleet):
    lease, token = await fleet.control.assign(A)
    async with fleet.hold(token) as holder:
        await holder.until("initialized", A)
        await holder.evaluate(A, *range(20))
        await holder.until_results(A, 1)
        await fleet.control.release(lease)
        await fleet.control.available(A)
    async with fleet.hold(token) as late:
        found = {**holder.results(A), **late.results(A)}
        for key, value in found.items():
            assert value == str(answer(holder.bitstream(int(key)), A))
