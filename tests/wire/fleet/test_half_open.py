"""A line that is dead and does not say so, as after a router was restarted: the client notices, and makes a new one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fieldstation.fleet.client import line as line_module
from fieldstation.fleet.client.evaluation import PulseCountEvaluation
from fieldstation.fleet.client.reserving import ask_for
from fieldstation.fleet.client.session import FleetClient
from fieldstation.testing.line import Line

pytestmark = pytest.mark.timeout(60)


async def test_evaluations_go_on_after_a_half_open_line(
    fleet: Any, bitstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "SILENT_S", 0.3)
    fleet.sio.eio.ping_interval, fleet.sio.eio.ping_timeout = 0.2, 60
    line = Line(fleet.port)
    real, fleet.port = fleet.port, line.port  # rows name the line
    try:
        async with FleetClient(f"http://127.0.0.1:{real}", "ann") as client:
            await client.reserve(1)
            asked = [PulseCountEvaluation("A", bitstream) for _ in range(3)]
            # A ping at least, so that the shorter patience counts.
            await asyncio.sleep(0.5)
            await asyncio.to_thread(line.strand)
            async with asyncio.timeout(30):
                results = [found async for found in client.evaluate(asked)]
            assert [found.reason for found in results if found.failed] == []
            assert len(results) == 3
    finally:
        line.close()


async def test_who_waits_for_devices_waits_for_a_control_that_restarts(fleet: Any) -> None:
    line = Line(fleet.port)
    try:
        async with FleetClient(f"http://127.0.0.1:{line.port}", "ann") as client:
            client.control.patience_s = 0.0
            await asyncio.to_thread(line.refuse)
            asking = asyncio.create_task(
                ask_for(client.control, "/reserve", {"amount": 1, "name": "ann", "kind": "pulsecount"}, wait_s=30)
            )
            await asyncio.sleep(0.5)
            assert not asking.done()
            await asyncio.to_thread(line.refuse, False)
            (held,) = await asking
            assert held.row.serial == "A"
    finally:
        line.close()


async def test_a_device_whose_worker_nobody_reaches_is_not_given_up(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda *_: None

    async def nobody(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, []  # what control answers when the worker cannot be asked

    fleet.replies["/reboot"] = nobody
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        evaluating = asyncio.ensure_future(_first(client, PulseCountEvaluation("A", bitstream)))
        async with asyncio.timeout(30):
            while not any(path == "/reboot" for path, _ in fleet.posts):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # longer than a device may be silent
        fleet.answer = lambda *_: "7"
        await fleet.cut()
        result = await evaluating
        assert (result.value, result.reason) == (7, "")


async def _first(client: FleetClient, evaluation: PulseCountEvaluation) -> Any:
    (found,) = [found async for found in client.evaluate([evaluation], result_timeout_s=0.2)]
    return found
