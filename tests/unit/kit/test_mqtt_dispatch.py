import asyncio
import contextlib

from fieldstation.kit.mqtt_dispatch import Acknowledgements, Subscription
from fieldstation.kit.mqtt_model import Message


def test_messages_are_acknowledged_in_the_order_they_came() -> None:
    said: list[int] = []
    order = Acknowledgements()
    first = order.expect(lambda: said.append(1), 1)
    second = order.expect(lambda: said.append(2), 1)
    second()
    assert said == []
    first()
    assert said == [1, 2]


def test_a_message_is_acknowledged_when_all_its_handlers_are_done() -> None:
    said: list[int] = []
    done = Acknowledgements().expect(lambda: said.append(1), 2)
    done()
    assert said == []
    done()
    assert said == [1]


def test_a_message_nobody_handles_is_acknowledged() -> None:
    said: list[int] = []
    Acknowledgements().expect(lambda: said.append(1), 0)
    assert said == [1]


async def test_a_slow_handler_loses_the_oldest_unguaranteed_messages_and_counts_them() -> None:
    seen: list[bytes] = []
    subscription = Subscription("t", lambda message: seen.append(message.payload), 0, max_waiting=2)
    for payload in (b"1", b"2", b"3"):
        subscription.put(Message("t", payload), None)
    await _drain(subscription, lambda: len(seen) == 2)
    assert seen == [b"2", b"3"]
    assert subscription.dropped == 1


async def test_a_handler_that_raises_does_not_stop_the_next_message() -> None:
    seen: list[bytes] = []

    async def handler(message: Message) -> None:
        seen.append(message.payload)
        raise ValueError

    subscription = Subscription("t", handler, 1, max_waiting=10)
    done: list[int] = []
    subscription.put(Message("t", b"1", 1), lambda: done.append(1))
    subscription.put(Message("t", b"2", 1), lambda: done.append(2))
    await _drain(subscription, lambda: len(done) == 2)
    assert seen == [b"1", b"2"]


async def _drain(subscription: Subscription, done: object) -> None:
    assert callable(done)
    task = asyncio.create_task(subscription.work())
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
