"""The async client against a server that does exactly what a test tells it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fieldstation.fleet.client.evaluation import EvaluationFailed, PulseCountEvaluation, Result
from fieldstation.fleet.client.reserving import parse_row
from fieldstation.fleet.client.session import FleetClient
from fieldstation.fleet.errors import (
    ControlUnreachableError,
    LeaseRefusedError,
    NotEnoughDevicesError,
    NotHeldError,
    ReservationFailedError,
)
from fieldstation.testing import program


async def collect(client: FleetClient, evaluations: list[Any], **options: Any) -> list[Result]:
    async with asyncio.timeout(8):
        return [found async for found in client.evaluate(evaluations, **options)]


async def test_reserves_evaluates_and_ends(fleet: Any, bitstream: Path) -> None:
    async with FleetClient(fleet.url, "ann") as client:
        assert await client.reserve(2) == ["A", "B"]
        results = await collect(
            client, [PulseCountEvaluation(["A", "B"], bitstream), PulseCountEvaluation("A", bitstream)]
        )
        assert sorted((r.serial, r.value) for r in results) == [("A", 104090), ("A", 104090), ("B", 104090)]
        serial, evaluation, value = results[0]
        assert (serial, evaluation, value) == (results[0].serial, results[0].evaluation, results[0].value)
    assert fleet.held == {}


async def test_lease_and_name_are_in_the_handshake_and_commands_are_msgpack(fleet: Any, bitstream: Path) -> None:
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        await collect(client, [PulseCountEvaluation("A", bitstream)])
        assert set(fleet.tokens.values()) == {"fsl_token_00000001"}
        (request,) = fleet.requests
        assert request["serial"] == ["A"]
        assert request["event"] == "evaluate"
        assert set(request["contents"]) == {"files", "batch_id"}


async def test_a_second_lease_is_presented_on_the_open_socket(fleet: Any) -> None:
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        await client.reserve(1)
        assert client.serials == ["A", "B"]
        assert set(fleet.tokens.values()) == {"fsl_token_00000002"}


async def test_many_evaluations_keep_every_board_within_its_window(fleet: Any, bitstream: Path) -> None:
    outstanding: dict[str, int] = {"A": 0, "B": 0}
    most: dict[str, int] = {"A": 0, "B": 0}

    def answer(serial: str, wire_id: str, data: bytes) -> None:
        outstanding[serial] += 1
        most[serial] = max(most[serial], outstanding[serial])

    fleet.answer = answer
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(2)

        async def slowly() -> None:
            while True:
                await fleet.until(lambda: bool(fleet.requests))
                message = fleet.requests.pop(0)
                (wire_id,) = message["contents"]["files"]
                for serial in message["serial"]:
                    outstanding[serial] -= 1
                    await fleet.results(serial, message["contents"]["batch_id"], [[wire_id, "7"]])

        async with asyncio.TaskGroup() as group:
            answering = group.create_task(slowly())
            results = await collect(client, [PulseCountEvaluation(["A", "B"], bitstream) for _ in range(40)])
            answering.cancel()
    assert len(results) == 80
    assert max(most.values()) <= 14


async def test_repeated_and_unknown_results_are_dropped(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda *_: None
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        evaluations = [PulseCountEvaluation("A", bitstream) for _ in range(2)]
        collecting = asyncio.create_task(collect(client, evaluations))
        await fleet.until(lambda: len(fleet.requests) == 2)
        batch_id = fleet.requests[0]["contents"]["batch_id"]
        first, second = (next(iter(r["contents"]["files"])) for r in fleet.requests)
        await fleet.results("A", batch_id, [[first, "1"], [first, "1"], ["stranger", "9"], "garbage"])
        await fleet.results("A", batch_id, [[first, "1"], [second, "2"]])
        assert [r.value for r in await collecting] == [1, 2]


async def test_unanswered_evaluations_are_sent_again_when_the_worker_is_back(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda *_: None
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        collecting = asyncio.create_task(collect(client, [PulseCountEvaluation("A", bitstream)]))
        await fleet.until(lambda: len(fleet.requests) == 1)
        fleet.answer = lambda *_: "31"
        await fleet.cut()
        assert [r.value for r in await collecting] == [31]
        ids = [[*r["contents"]["files"]] for r in fleet.requests]
        assert ids == [ids[0], ids[0]]


async def test_a_refused_evaluation_fails_with_the_workers_reason_and_others_go_on(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda serial, wire_id, data: None if serial == "A" else "5"
    fleet.acknowledge = lambda request: (
        {"error": {"code": "lease_refused", "message": "No."}} if request["serial"] == ["A"] else {"ok": True}
    )
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(2)
        results = await collect(client, [PulseCountEvaluation("A", bitstream), PulseCountEvaluation("B", bitstream)])
    by_serial = {r.serial: r for r in results}
    assert by_serial["B"].value == 5
    assert by_serial["A"].value is EvaluationFailed
    assert by_serial["A"].reason == "No."


async def test_of_two_devices_in_one_message_one_may_be_refused(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda serial, wire_id, data: None if serial == "A" else "5"
    fleet.acknowledge = lambda request: {"ok": True, "refused": {"A": {"reason": "lease_refused", "message": "No."}}}
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(2)
        results = await collect(client, [PulseCountEvaluation(["A", "B"], bitstream)])
    assert sorted((r.serial, r.failed, r.reason) for r in results) == [("A", True, "No."), ("B", False, "")]


async def test_a_worker_that_has_not_seen_its_boards_yet_is_asked_again(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda *_: "5" if len(fleet.requests) == 2 else None
    fleet.acknowledge = lambda request: (
        {"error": {"code": "unknown_serial", "message": "Not yet."}} if len(fleet.requests) == 1 else {"ok": True}
    )
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        assert [r.value for r in await collect(client, [PulseCountEvaluation("A", bitstream)])] == [5]


async def test_a_failure_that_the_worker_states_has_its_reason(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda *_: None
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        collecting = asyncio.create_task(collect(client, [PulseCountEvaluation("A", bitstream)]))
        await fleet.until(lambda: bool(fleet.requests))
        contents = fleet.requests[0]["contents"]
        (wire_id,) = contents["files"]
        item = {"event": "results", "batch_id": contents["batch_id"], "results": [[wire_id, None]]}
        await fleet.tell("A", {**item, "reasons": {wire_id: "the board hangs"}})
        (result,) = await collecting
        assert result.failed
        assert result.reason == "the board hangs"


@pytest.mark.parametrize("event", ["failure", "reservation end"])
async def test_a_lost_device_fails_its_evaluations_once_each(fleet: Any, bitstream: Path, event: str) -> None:
    fleet.answer = lambda *_: None
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        evaluations = [PulseCountEvaluation("A", bitstream) for _ in range(30)]
        collecting = asyncio.create_task(collect(client, evaluations))
        await fleet.until(lambda: len(fleet.requests) >= 14)
        for _ in range(2):
            await fleet.tell("A", {"event": event})
        results = await collecting
        assert len(results) == 30
        assert all(r.failed for r in results)
        assert client.serials == []


async def test_a_late_end_of_an_earlier_lease_does_not_end_this_one(fleet: Any) -> None:
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        await client.end("A")
        await client.reserve(1)
        await fleet.tell("A", {"event": "reservation end", "fence": 1})
        await fleet.tell("A", {"event": "marker"})
        async with asyncio.timeout(5):
            async for event in client.events.stream():
                if event.event == "marker":
                    break
                await fleet.tell("A", {"event": "marker"})
        assert client.serials == ["A"]


async def test_a_silent_device_is_rebooted_asked_again_and_then_given_up(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda *_: None
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        (result,) = await collect(client, [PulseCountEvaluation("A", bitstream)], result_timeout_s=0.2)
        assert result.failed
        assert "did not answer" in result.reason
        assert ("/reboot", {"serials": ["A"]}) in fleet.posts
        assert len(fleet.requests) == 2
        await fleet.until(lambda: "A" not in fleet.held)


async def test_a_value_that_is_no_number_is_a_stated_failure(fleet: Any, bitstream: Path) -> None:
    fleet.answer = lambda *_: "many"
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        (result,) = await collect(client, [PulseCountEvaluation("A", bitstream)])
    assert result.failed
    assert "many" in result.reason


async def test_files_that_cannot_be_evaluated_fail_alone(fleet: Any, bitstream: Path, tmp_path: Path) -> None:
    (tmp_path / "short.bin").write_bytes(b"x")
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        paths = [tmp_path / "absent.bin", tmp_path / "short.bin", tmp_path, bitstream]
        results = await collect(client, [PulseCountEvaluation("A", path) for path in paths])
    reasons = {Path(r.evaluation.filepath).name: r.reason for r in results}
    assert "No such file" in reasons["absent.bin"]
    assert "it has 1 bytes" in reasons["short.bin"]
    assert reasons["circuit.bin"] == ""
    assert len(fleet.requests) == 1


async def test_nothing_is_sent_for_devices_that_are_not_held(fleet: Any, bitstream: Path) -> None:
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        with pytest.raises(NotHeldError, match="B"):
            await collect(client, [PulseCountEvaluation(["A", "B"], bitstream)])
        assert fleet.requests == []
        assert await client.request(["A", "B"], "getdata", {"data": "x"}) == ["B"]


async def test_no_evaluations_are_no_results(fleet: Any) -> None:
    async with FleetClient(fleet.url, "ann") as client:
        assert await collect(client, []) == []


async def test_waiting_keeps_its_ticket_and_tells_the_reason(fleet: Any) -> None:
    asked: list[dict[str, Any]] = []
    usual = fleet._usual("/reserve")

    async def reply(body: dict[str, Any]) -> tuple[int, Any]:
        asked.append(body)
        if len(asked) < 3:
            return 202, {"ticket": "t1", "position": 3 - len(asked), "reason": "bob has it", "estimate_s": None}
        return await usual(body)

    fleet.replies["/reserve"] = reply
    places = []
    async with FleetClient(fleet.url, "ann") as client:
        assert await client.reserve(1, wait_s=30, on_wait=places.append) == ["A"]
    assert [(p.position, p.reason) for p in places] == [(2, "bob has it"), (1, "bob has it")]
    assert [body["ticket"] for body in asked[1:]] == ["t1", "t1"]
    assert all(0 < body["wait_s"] <= 15 for body in asked)


async def test_waiting_ends_with_the_reason(fleet: Any) -> None:
    async def reply(body: dict[str, Any]) -> tuple[int, Any]:
        await asyncio.sleep(min(body["wait_s"], 0.05))
        return 202, {"ticket": "t1", "position": 1, "reason": "bob has it"}

    fleet.replies["/reserve"] = reply
    async with FleetClient(fleet.url, "ann") as client:
        with pytest.raises(NotEnoughDevicesError, match="bob has it"):
            await client.reserve(1, wait_s=0.1)


async def test_a_device_that_fails_before_it_is_ready_gives_everything_back(fleet: Any) -> None:
    fleet.ready_at_once = False
    async with FleetClient(fleet.url, "ann") as client:
        reserving = asyncio.create_task(client.reserve(2))
        await fleet.until(lambda: bool(fleet.held))
        await fleet.tell("A", {"event": "failure", "reason": "it would not flash"})
        with pytest.raises(ReservationFailedError, match="it would not flash"):
            await reserving
        assert fleet.held == {}
        assert client.serials == []


async def test_a_device_that_never_gets_ready_is_given_back_in_time(fleet: Any) -> None:
    fleet.ready_at_once = False
    async with FleetClient(fleet.url, "ann") as client:
        with pytest.raises(ReservationFailedError, match="not ready within"):
            await client.reserve(1, ready_timeout_s=0.2)
        assert fleet.held == {}


async def test_a_lease_that_the_worker_refuses_is_an_error_with_its_reason(fleet: Any) -> None:
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        usual = fleet._usual("/reserve")

        async def reply(body: dict[str, Any]) -> tuple[int, Any]:
            status, rows = await usual(body)
            return status, [{**row, "lease": "fsl_wrong"} for row in rows]

        fleet.replies["/reserve"] = reply
        with pytest.raises(LeaseRefusedError, match="over"):
            await client.reserve(1)
        assert client.serials == ["A"]


async def test_a_worker_at_a_wrong_address_is_named_and_nothing_is_kept(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fieldstation.fleet.client.session.REACH_S", 0.3)
    usual = fleet._usual("/reserve")

    async def reply(body: dict[str, Any]) -> tuple[int, Any]:
        status, rows = await usual(body)
        return status, [{**row, "url": "http://lease:x@127.0.0.1:9"} for row in rows]

    fleet.replies["/reserve"] = reply
    async with FleetClient(fleet.url, "ann") as client:
        with pytest.raises(ReservationFailedError, match="cannot be reached"):
            await client.reserve(1)
        assert fleet.held == {}
        assert client.serials == []


async def test_a_clock_that_is_hours_off_changes_nothing(fleet: Any) -> None:
    async with FleetClient(fleet.url, "ann") as client:
        client.control._note_clock("Fri, 20 Nov 2026 12:00:00 GMT")
        there = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
        assert abs((client.control.now() - there).total_seconds()) < 5
        row = {"serial": "A", "url": "http://x:1", "until": (there + timedelta(hours=1)).isoformat()}
        assert 3590 < parse_row(row, "pulsecount", client.control.now()).ends_in_s <= 3600
        client.control._note_clock(None)
        client.control._note_clock("nonsense")


async def test_leases_are_extended_by_themselves(fleet: Any) -> None:
    fleet.lease_s = 0.6
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        await fleet.until(lambda: sum(path == "/extend" for path, _ in fleet.posts) >= 2)


async def test_a_lease_that_cannot_be_extended_any_more_is_dropped(fleet: Any) -> None:
    fleet.lease_s = 0.6
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        fleet.held.clear()
        await fleet.until(lambda: any(path == "/extend" for path, _ in fleet.posts))
        async with asyncio.timeout(5):
            while client.serials:
                await asyncio.sleep(0.01)


async def test_no_control_is_one_sentence_at_once() -> None:
    with pytest.raises(ControlUnreachableError, match="No control server answers at"):
        async with FleetClient("http://127.0.0.1:9", "ann"):
            pass


async def test_the_second_control_is_used_when_the_first_is_gone_or_does_not_lead(fleet: Any) -> None:
    async with FleetClient(f"http://127.0.0.1:9,{fleet.url}", "ann") as client:
        assert await client.reserve(1) == ["A"]
        assert client.control.addresses[0].url == fleet.url


async def test_a_reservation_that_may_have_arrived_is_not_asked_for_twice(fleet: Any) -> None:
    async def cut(body: dict[str, Any]) -> tuple[int, Any]:
        for connection in fleet._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        return 200, []

    fleet.replies["/reserve"] = cut
    async with FleetClient(fleet.url, "ann") as client:
        with pytest.raises(ControlUnreachableError):
            await client.reserve(1)
        assert sum(path == "/reserve" for path, _ in fleet.posts) == 1


async def test_a_circuit_is_packed_with_icepack_on_the_way(fleet: Any, tmp_path: Path) -> None:
    program("icepack")
    circuit, broken = tmp_path / "circuit.asc", tmp_path / "broken.asc"
    circuit.write_text(".comment\n.device 5k\n.io_tile 1 0\n" + ("0" * 18 + "\n") * 16)
    broken.write_text(".device 9k\n")
    async with FleetClient(fleet.url, "ann") as client:
        await client.reserve(1)
        results = await collect(client, [PulseCountEvaluation("A", path) for path in (circuit, broken)])
    by_file = {Path(r.evaluation.filepath).name: r for r in results}
    assert by_file["circuit.asc"].value == 104090
    assert "broken.asc" in by_file["broken.asc"].reason
