"""Our client against real servers: turns, tokens, ends, and a command that is stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from fieldstation.core.security import UnauthorizedError
from fieldstation.fleet import EventServer, PulseCountClient, PulseCountEvaluation, VarMaxClient
from fieldstation.fleet.client.session import FleetClient
from fieldstation.fleet.errors import NotEnoughDevicesError
from fieldstation.testing import running, wait_for

pytestmark = pytest.mark.timeout(90)


async def test_a_board_that_is_ended_and_reserved_again_stays_reserved(all_free: str) -> None:
    """The word of the earlier lease's end may come when the next lease is there."""
    async with FleetClient(all_free, "again") as client:
        for _ in range(25):
            (serial,) = await client.reserve_serials("1111111111111111", wait_s=20)
            assert client.serials == [serial]
            await client.end(serial)
        await client.reserve_serials("1111111111111111", wait_s=20)
        evaluated = [result async for result in client.evaluate([])]
        assert evaluated == []
        assert client.serials == ["1111111111111111"]


async def test_forty_clients_that_queue_for_four_boards_all_get_their_turn(all_free: str, files: list[Path]) -> None:
    served: list[str] = []

    async def one(number: int) -> None:
        async with FleetClient(all_free, f"client-{number}") as client:
            serials = await client.reserve(1, wait_s=60)
            results = [result async for result in client.evaluate([PulseCountEvaluation(serials, files[0])])]
            assert [result.failed for result in results] == [False]
            served.append(client.name)

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(one(number))
    assert len(set(served)) == 40


async def test_a_client_that_stops_waiting_keeps_nothing(all_free: str) -> None:
    async def free(amount: int) -> None:
        await asyncio.to_thread(wait_for, lambda: available(all_free) == amount, 20)

    async with FleetClient(all_free, "holder") as holder, FleetClient(all_free, "impatient") as impatient:
        await holder.reserve(3)
        waiting = asyncio.create_task(impatient.reserve(4, wait_s=60))
        await free(0)  # the fourth is kept for the one who waits
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert available(all_free) == 1
        with pytest.raises(NotEnoughDevicesError, match="No devices became free within"):
            await impatient.reserve(4, wait_s=0.1)
        assert available(all_free) == 1
        await holder.end(holder.serials)
        await free(4)
    assert reservations(all_free) == []


def available(url: str) -> int:
    with urlopen(f"{url}/available", timeout=5) as answer:
        return int(json.load(answer)["amount"])


def reservations(url: str) -> list[dict[str, object]]:
    with urlopen(f"{url}/api/fleet/reservations", timeout=5) as answer:
        rows: list[dict[str, object]] = json.load(answer)
        return rows


def test_both_kinds_in_one_program(all_free: str, files: list[Path]) -> None:
    logger = logging.getLogger("test")
    with (
        PulseCountClient(all_free, "pulses", logger) as pulses,
        VarMaxClient(all_free, "variance", logger, send_waveform=True) as variance,
    ):
        pulses.reserve(2)
        variance.reserve(2)
        assert all(isinstance(value, int) for _, _, value in pulses.evaluateBitstreams(files))
        for _, _, (fitness, samples) in variance.evaluateBitstreams(files):
            assert isinstance(fitness, float)
            assert len(samples) == 500


def test_a_stopped_command_gives_its_boards_back(all_free: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "fieldstation", "fleet", "evaluate", "--control", all_free, "--amount", "2"]
    done = subprocess.run([*command, files[0]], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""  # nothing went wrong, so nothing is reported
    process = subprocess.Popen([*command, *files * 3000], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(reservations(all_free)) == 2, 30)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.endswith("fieldstation: stopped\n")
    assert "Traceback" not in errors
    assert reservations(all_free) == []


async def test_a_control_that_wants_tokens_gets_one_from_address_or_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path / 'fleet.db'}"
    made = subprocess.run(
        [sys.executable, "-m", "fieldstation", "tokens", "create", "ann", "--role", "user", "--database", database],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    token = made.stdout.split()[0]
    control = ("fieldstation", "fleet", "control", "--port", "0", "--database", database, "--require-tokens")
    with running(*control, deadline_s=40) as server:
        with pytest.raises(UnauthorizedError, match="needs a token"):
            async with FleetClient(server.url, "ann"):
                pass
        with pytest.raises(UnauthorizedError):
            async with FleetClient(server.url, "ann", token="fst_wrong"):
                pass
        async with FleetClient(server.url, "ann", token=token) as client:
            assert await client.available() == 0
        async with FleetClient(server.url.replace("://", f"://ann:{token}@"), "ann") as client:
            assert await client.available() == 0
        monkeypatch.setenv("FIELDSTATION_TOKEN", f"{token}\n")  # as a file of variables may hold it

        def blocking() -> object:
            with PulseCountClient(server.url, "ann") as client:
                events = EventServer("ann")
                assert events.connectControl(server.url)
                events.exit()
                return client.availableDevices()

        assert await asyncio.to_thread(blocking) == []
        assert token not in server.output
