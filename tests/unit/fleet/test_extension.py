from __future__ import annotations

import asyncio

from fieldstation.fleet.client.extension import Extension, extension_period_s
from fieldstation.fleet.client.reserving import parse_row
from fieldstation.fleet.control.clock import FleetClock
from fieldstation.fleet.errors import ControlUnreachableError, NotHeldError
from fieldstation.testing import eventually


def held(*serials: str):
    row = {"url": "http://lease:t@w:1", "lease": "t", "fence": 1, "until": "2001-01-01T00:00:00+00:00", "for_s": 3600}
    return {serial: parse_row({**row, "serial": serial}, "pulsecount", FleetClock().now()) for serial in serials}


def test_a_rows_seconds_count_whatever_the_clocks_say():
    [one] = held("A1").values()
    assert one.ends_in_s == 3600
    assert extension_period_s([one.ends_in_s]) == 600


async def test_when_control_says_that_time_is_short_everything_is_extended_at_once_and_again_after_a_failure(
    monkeypatch,
):
    monkeypatch.setattr("fieldstation.fleet.client.extension.AGAIN_S", 0.0)
    asked: list[list[str]] = []
    dropped: list[str] = []

    async def extend(serials: list[str]) -> list[str]:
        asked.append(serials)
        if len(asked) == 1:
            raise ControlUnreachableError(url="http://x", problem="gone")
        if len(asked) == 3:
            raise NotHeldError(client="bob", serials="A1")
        return serials[:1]

    devices = held("A1", "A2")
    extension = Extension(devices, extend, lambda serial, reason: (dropped.append(serial), devices.pop(serial)))
    running = asyncio.create_task(extension.run())
    extension.soon()
    await eventually(lambda: len(asked) == 2)  # without it the next one would come in ten minutes
    await eventually(lambda: dropped == ["A2"])
    extension.soon()
    await eventually(lambda: dropped == ["A2", "A1"])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
