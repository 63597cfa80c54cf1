import asyncio
import gc

import pytest

from fieldstation.core.events import Publisher


def test_every_subscriber_gets_every_event_in_order():
    got = []
    publisher = Publisher[int]()
    publisher.subscribe(lambda event: got.append(("a", event)))
    publisher.subscribe(lambda event: got.append(("b", event)))
    publisher.publish(1)
    publisher.publish(2)
    assert got == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_a_subscriber_that_raises_stops_nobody(caplog):
    got = []
    publisher = Publisher[int]()
    publisher.subscribe(lambda event: 1 / 0)
    publisher.subscribe(got.append)
    publisher.publish(1)
    assert got == [1]
    assert "ZeroDivisionError" in caplog.text


def test_unsubscribing_twice_ends_only_the_own_subscription():
    got = []
    publisher = Publisher[int]()
    end_first = publisher.subscribe(got.append)
    publisher.subscribe(got.append)
    end_first()
    end_first()
    publisher.publish(1)
    assert got == [1]


def test_a_subscriber_may_leave_while_an_event_is_delivered():
    publisher = Publisher[int]()
    got = []
    ends = [publisher.subscribe(lambda event: ends[1]())]
    ends.append(publisher.subscribe(got.append))
    publisher.publish(1)
    publisher.publish(2)
    assert got == [1]


async def test_a_stream_begins_when_it_is_asked_for():
    publisher = Publisher[int]()
    stream = publisher.stream()
    publisher.publish(1)
    publisher.publish(2)
    assert [await anext(stream), await anext(stream)] == [1, 2]


async def test_a_slow_reader_loses_the_oldest_and_knows_how_many():
    publisher = Publisher[int]()
    stream = publisher.stream(buffer=2)
    for number in range(5):
        publisher.publish(number)
    assert [await anext(stream), await anext(stream)] == [3, 4]
    assert stream.lost == 3


async def test_closing_releases_a_reader_that_waits():
    publisher = Publisher[int]()
    stream = publisher.stream()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_a_stream_that_is_dropped_is_unsubscribed():
    publisher = Publisher[int]()
    stream = publisher.stream()
    del stream
    gc.collect()
    assert publisher._callbacks == {}
