from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fieldstation.core.events import Publisher
from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.wire.standby import StandbyGate
from fieldstation.testing import eventually


class Leader:
    """As much of a control as the gate asks."""

    def __init__(self, leads: bool) -> None:
        self.leads = leads
        self.leading: Publisher[bool] = Publisher()

    def must_lead(self) -> None:
        if not self.leads:
            raise NotLeaderError(leader="one:8080")


async def ask(gate: StandbyGate, path: str, kind: str = "http") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await gate({"type": kind, "path": path}, lambda: asyncio.sleep(3600), send)
    return sent


async def served(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "served"})


async def test_one_that_stands_by_sends_requests_away_and_says_who_leads():
    gate = StandbyGate(served, Leader(leads=False))
    start, body = await ask(gate, "/reserve")
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"1")
    assert json.loads(body["body"])["error"] == {
        "code": "not_leader",
        "message": "This control does not lead now, but one:8080. Ask that one, or again in a few seconds.",
    }
    assert (await ask(gate, "/ui/live/x", "websocket"))[0]["code"] == 1013
    for path in ("/health", "/metrics", "/docs", "/socket.io/"):
        assert await ask(gate, path) == [{"type": "served"}]


async def test_a_websocket_that_is_open_ends_when_another_control_leads():
    leader = Leader(leads=True)
    ended: list[str] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "websocket.accept"})
            await asyncio.sleep(3600)
        finally:
            ended.append("cancelled")

    gate = StandbyGate(endless, leader)
    open_one = asyncio.create_task(ask(gate, "/ui", "websocket"))
    leader.leading.publish(True)
    await asyncio.sleep(0)
    assert not open_one.done()
    leader.leading.publish(False)
    await eventually(open_one.done)
    assert ended == ["cancelled"]


async def test_what_goes_wrong_in_a_websocket_is_told_as_it_is():
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        await ask(StandbyGate(broken, Leader(leads=True)), "/ui", "websocket")
