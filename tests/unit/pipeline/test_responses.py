import asyncio

import pytest

from fieldstation.pipeline import responses
from fieldstation.pipeline.errors import RequestTimeoutError
from fieldstation.pipeline.model import Message
from fieldstation.pipeline.responses import Responses


def answer(request_id, text="x"):
    return Message(request_id, text)


async def test_an_answer_that_comes_before_anybody_waits_is_kept():
    kept = Responses()
    kept.expect("a")
    assert kept.arrived(answer("a"))
    assert (await kept.next("a")).payload == "x"


async def test_a_second_answer_is_not_lost():
    kept = Responses()
    kept.expect("a")
    kept.arrived(answer("a", 1))
    kept.arrived(answer("a", 2))
    assert [(await kept.next("a")).payload, (await kept.next("a")).payload] == [1, 2]


async def test_an_answer_to_somebody_else_is_refused():
    assert not Responses().arrived(answer("unknown"))


async def test_waiting_ends_in_time_and_leaves_nothing_behind():
    kept = Responses()
    with pytest.raises(RequestTimeoutError, match="No response to request a came within 0"):
        await kept.next("a", 0)
    kept.forget("a")
    assert len(kept) == 0


async def test_shutdown_wakes_everybody_with_none():
    kept = Responses()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(kept.next("a"))
        await asyncio.sleep(0)
        kept.close()
    assert waiting.result() is None
    assert await kept.next("b") is None


async def test_abandoned_requests_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(responses, "KEPT", 10)
    kept = Responses()
    for number in range(100):
        kept.expect(str(number))
    assert len(kept) == 10
