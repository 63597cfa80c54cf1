"""Who makes the broker close the line: decided on a line that tests break as they like."""

from __future__ import annotations

import asyncio

import pytest

from fieldstation.kit import mqtt_suspects
from fieldstation.kit.mqtt_line import Sent
from fieldstation.kit.mqtt_model import Message, MqttPublishRefusedError
from fieldstation.kit.mqtt_suspects import Suspects


class FakeLine:
    def __init__(self) -> None:
        self.acknowledged = 0
        self.unacknowledged: list[Sent] = []
        self.sent: list[str] = []

    def take_back(self) -> list[Sent]:
        taken, self.unacknowledged = [sent for sent in self.unacknowledged if not sent.future.done()], []
        return taken

    def publish(self, message: Message, expiry_s: int | None = None) -> asyncio.Future[None]:
        self.sent.append(message.topic)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if message.topic != "bad":
            self.acknowledged += 1
            future.set_result(None)
        return future


@pytest.fixture(autouse=True)
def no_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_suspects, "CALM_S", 0.0)


def on_its_way(line: FakeLine, *topics: str, qos: int = 1) -> list[asyncio.Future[None]]:
    loop = asyncio.get_running_loop()
    line.unacknowledged = [Sent(Message(topic, qos=qos), None, loop.create_future()) for topic in topics]
    return [sent.future for sent in line.unacknowledged]


def suspects(line: FakeLine, clock: list[float]) -> Suspects:
    return Suspects(line, clock=lambda: clock[0])


async def open_line(suspected: Suspects) -> bool:
    """Go through the suspects of a new line; True when none is left."""
    clearing = asyncio.create_task(suspected.clear())
    await asyncio.sleep(0.001)
    if not clearing.done():
        clearing.cancel()
        await asyncio.wait([clearing])
    return not clearing.cancelled()


async def test_the_message_after_which_the_line_breaks_each_time_is_refused_and_the_others_are_sent() -> None:
    line = FakeLine()
    suspected = suspects(line, [0.0])
    first, bad, last = on_its_way(line, "first", "bad", "last")
    for _ in range(mqtt_suspects.BARREN_BREAKS - 1):
        assert not suspected.line_broke()
    assert suspected.line_broke()
    for _ in range(mqtt_suspects.STRIKES):
        assert not bad.done()
        assert not await open_line(suspected)
        assert suspected.line_broke(), "the next try follows at once"
    with pytest.raises(MqttPublishRefusedError, match="closes the line"):
        await bad
    assert await open_line(suspected)
    await asyncio.gather(first, last)
    assert line.sent == ["first", "bad", "bad", "bad", "last"]


async def test_breaks_with_acknowledgements_between_them_accuse_nobody() -> None:
    line = FakeLine()
    suspected = suspects(line, [0.0])
    on_its_way(line, "good")
    for _ in range(10):
        line.acknowledged += 1
        suspected.line_broke()
    assert await open_line(suspected)
    assert line.sent == []


async def test_a_line_that_breaks_while_it_carries_nothing_clears_the_message() -> None:
    line = FakeLine()
    suspected = suspects(line, [0.0])
    (bad,) = on_its_way(line, "bad")
    for _ in range(mqtt_suspects.BARREN_BREAKS):
        suspected.line_broke()
    for _ in range(10):
        assert not await open_line(suspected)
        assert suspected.line_broke()
        assert not suspected.line_broke(), "in the calm of the next connection"
    assert not bad.done()


async def test_a_line_that_breaks_long_after_a_message_is_no_refusal() -> None:
    line, clock = FakeLine(), [0.0]
    suspected = suspects(line, clock)
    (bad,) = on_its_way(line, "bad")
    for _ in range(mqtt_suspects.BARREN_BREAKS):
        suspected.line_broke()
    for _ in range(10):
        assert not await open_line(suspected)
        clock[0] += 30.0
        assert not suspected.line_broke()
    assert not bad.done()


async def test_messages_of_qos_2_stay_with_the_session() -> None:
    line = FakeLine()
    suspected = suspects(line, [0.0])
    on_its_way(line, "exactly once", qos=2)
    for _ in range(10):
        suspected.line_broke()
    assert await open_line(suspected)
    assert line.unacknowledged
