from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldstation.pipeline.errors import PublishError
from fieldstation.site.bridges import archive, fleet, frames, join, stations
from fieldstation.site.bridges.cursor import Cursor
from fieldstation.site.bridges.passage import passage
from fieldstation.site.bridges.reading import rows
from fieldstation.site.bridges.record import fields, record
from fieldstation.stream.model import Frame, ImageType


class Sending:
    """A message whose confirmation the test gives."""

    def __init__(self) -> None:
        self.result: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def confirmed(self) -> None:
        await self.result


class Config:
    """Stands for `sdk.centralized_config`: a dictionary."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def get_config(self, key: str, scope: Any = None) -> tuple[str | None, bool]:
        return self.values.get(key), key in self.values

    async def get(self, key: str, kind: Any = str, default: Any = None) -> Any:
        return kind(self.values[key]) if key in self.values else default

    async def set_config(self, key: str, value: str, scope: Any = None) -> None:
        self.values[key] = value


class Sdk:
    """Stands for a node's sdk; `sent` is (id, fields, sending)."""

    def __init__(self, *, confirm: bool = True) -> None:
        self.centralized_config = Config()
        self.messaging = self
        self.sent: list[tuple[str, dict[str, Any], Sending]] = []
        self._confirm = confirm

    def send_output_with_request_id(self, message: Any, request_id: str, chan: str | None = None) -> Sending:
        sending = Sending()
        if self._confirm:
            sending.result.set_result(None)
        self.sent.append((request_id, fields(message), sending))
        return sending

    def get_request_id(self) -> str:
        return "request"


def _frame(number: int, file: str = "a.pff") -> Frame:
    pixels = np.full((32, 32), 7, "<u2").tobytes()
    header = {"quabo_0": {"tv_sec": 100, "tv_usec": 500_000}}
    return Frame(ImageType.MOVIE, 1, "img16", (32, 32), 2, header, pixels, file, number)


async def test_a_frame_goes_once_and_gaps_are_counted() -> None:
    sdk = Sdk()
    forwarding = frames.Forwarding("camera", Cursor(sdk, "c"))
    async with passage(sdk) as out:
        for number in (0, 1, 1, 0, 4):  # a reconnect repeats what the run holds already
            await forwarding.forward(_frame(number), out)
        await asyncio.sleep(0)
        while not out.is_idle:
            await asyncio.sleep(0)
    assert [identity for identity, _, _ in sdk.sent] == ["a.pff#0", "a.pff#1", "a.pff#4"]
    assert forwarding.cursor.value == {"files": {"a.pff": 4}, "forwarded": 3, "missing": 2}
    values = sdk.sent[0][1]
    assert values["time"] == 100.5
    assert values["values"]["mean"] == values["values"]["max"] == 7
    again = frames.Forwarding("camera", Cursor(sdk, "c"))  # after a crash
    await again.cursor.load()
    async with passage(sdk) as out:
        await again.forward(_frame(4), out)
    assert len(sdk.sent) == 3


async def test_nothing_more_is_taken_while_the_server_confirms_nothing() -> None:
    sdk = Sdk(confirm=False)
    told: list[bool] = []

    async def done(stored: bool) -> None:
        told.append(stored)

    async with passage(sdk, window=2) as out:
        for number in range(3):  # one is waited for, two stand in the queue
            await out.send(record("x", str(number), 0.0, {}), str(number), done)
            await asyncio.sleep(0)
        blocked = asyncio.ensure_future(out.send(record("x", "3", 0.0, {}), "3", done))
        await asyncio.sleep(0)
        assert not blocked.done()
        sdk.sent[0][2].result.set_result(None)
        await blocked
        sdk.sent[1][2].result.set_exception(PublishError(subject="s", problem="refused"))
        while len(told) < 2:
            await asyncio.sleep(0)
    assert told == [True, False]


def test_a_stations_message_becomes_a_record() -> None:
    body = {"variant": "data", "data": {"temperature": 3.5}}
    data = json.dumps({"id": "u1", "timestamp": 12.5, "revision": 1, "body": body}).encode()
    found = stations.parsed("roof", "data", data)
    assert found is not None
    identity, message = found
    assert identity == "u1"
    assert fields(message) == {
        "source": "station", "id": "u1", "time": 12.5,
        "values": {"station": "roof", "kind": "data", "temperature": 3.5},
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"id": 1, "timestamp": "x", "body": {}}', b"\xff"])
def test_what_no_station_sent_is_left_out(data: bytes) -> None:
    assert stations.parsed("roof", "data", data) is None


async def test_the_fleets_log_is_read_to_its_beginning_in_order() -> None:
    class Control:
        async def get(self, path: str) -> list[dict[str, Any]]:
            before = int(path.partition("before=")[2] or 2501)
            return [{"id": n} for n in range(before - 1, max(0, before - 1001), -1)]

    assert [row["id"] async for row in fleet.after(Control(), 0)] == list(range(1, 2501))
    assert [row["id"] async for row in fleet.after(Control(), 2490)] == list(range(2491, 2501))


async def test_a_record_is_archived_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sdk = Sdk()
    message = record("station", "u1", 86400.5, {"temperature": 3.5})
    for _ in range(3):
        await archive.archive(sdk, message)
    await archive.archive(sdk, record("frames", "f1", 86401.0, {}))
    await archive.archive.node.finalizer(sdk)
    path = tmp_path / "archive" / "archive.sqlite3"
    assert list(rows(path, "station")) == [("u1", "station", 86400.5, {"temperature": 3.5})]
    assert len(list(rows(path))) == 2
    assert (tmp_path / "archive" / "messages" / "1970-01-02.csv").read_text().count("\n") == 3


async def test_a_record_gets_the_newest_of_the_others_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "_latest", join.Latest())
    sdk = Sdk()
    for temperature, moment in ((1.0, 5.0), (2.0, 6.0), (9.0, 4.0)):  # the last one came late
        weather = record("station", "w", moment, {"temperature": temperature})
        assert await join.join(sdk, weather) is weather
    found = fields(await join.join(sdk, record("pulses", "p", 7.0, {"pulses": 12})))
    assert found["values"] == {"pulses": 12, "station_temperature": 2.0, "station_time": 6.0}
    monkeypatch.setattr(join, "_latest", join.Latest())  # a new process
    again = fields(await join.join(sdk, record("pulses", "q", 8.0, {"pulses": 13})))
    assert again["values"]["station_temperature"] in (1.0, 2.0)  # what was saved a moment before
