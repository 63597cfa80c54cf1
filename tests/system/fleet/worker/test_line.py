"""The worker's end of the line to control, in this process, when the line is silent for longer than it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from fieldstation.core.events import Publisher
from fieldstation.fleet.wire import line as line_module
from fieldstation.fleet.wire.line import ControlLine, LogBacklog
from fieldstation.testing import eventually
from fieldstation.testing.line import Line

pytestmark = pytest.mark.timeout(60)


class Stub:
    """What a line asks of a worker."""

    name = "w"

    def __init__(self) -> None:
        self.reports: Publisher[Any] = Publisher()
        self.connected = False
        self.greeted = 0

    def hello(self) -> dict[str, Any]:
        self.greeted += 1
        return {"name": "w", "url": "http://w:1", "devices": [], "leases": []}

    async def reunite(self, leases: Any, out_of_service: Mapping[str, Any] | None = None) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def test_a_line_that_was_silent_for_too_long_is_made_anew(
    fleet_parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker once ended at this: its error came wrapped twice."""
    monkeypatch.setattr(line_module, "CALL_S", 0.5)
    fake_control, _ = fleet_parts
    async with fake_control() as control:
        between = Line(control.server.port)
        worker = Stub()
        kept = ControlLine(worker, [f"http://127.0.0.1:{between.port}"], backlog=LogBacklog())
        keeping = asyncio.create_task(kept.run())
        try:
            await eventually(lambda: control.said("beat"), 30)
            await asyncio.to_thread(between.hold)
            await eventually(lambda: not worker.connected or keeping.done(), 30)
            await asyncio.to_thread(between.hold, False)
            await eventually(lambda: worker.greeted >= 2 or keeping.done(), 30)
            assert not keeping.done(), keeping.exception()
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            await asyncio.to_thread(between.close)


async def test_a_worker_whose_name_another_one_has_taken_says_hello_again(fleet_parts: Any) -> None:
    fake_control, _ = fleet_parts
    async with fake_control() as control:
        worker = Stub()
        kept = ControlLine(worker, [control.url], backlog=LogBacklog())  # type: ignore[arg-type]  # a stand-in
        keeping = asyncio.create_task(kept.run())
        try:
            await eventually(lambda: control.said("beat"), 30)
            control.refuse_beats = True
            await eventually(lambda: worker.greeted >= 2 or keeping.done(), 30)
            assert not keeping.done(), keeping.exception()
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
