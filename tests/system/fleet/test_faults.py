"""Parts are killed in the middle of evaluations. Each test counts what was delivered against what was sent."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from fieldstation.fleet.client.evaluation import PulseCountEvaluation, Result
from fieldstation.fleet.client.session import FleetClient
from fieldstation.testing import ServerProcess, free_port, wait_for

pytestmark = pytest.mark.timeout(90)

BOARDS = 4
BITSTREAM_BYTES = 104_090


class Fleet:
    """A control and a worker with four boards, each on a port that it keeps over restarts."""

    def __init__(self, folder: Path, *, measure_s: float = 0.01, **control: float) -> None:
        self.folder = folder
        self.control_port, self.worker_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.control_port}"
        self.env = {f"FIELDSTATION_FLEET_CONTROL_{key.upper()}": str(value) for key, value in control.items()}
        self.config = folder / "worker.toml"
        self.config.write_text(f"[fleet.worker.settings.simulated]\nmeasure_s = {measure_s}\nboards = {BOARDS}\n")
        self.control = self.start_control()
        self.worker = self.start_worker()

    def start_control(self) -> ServerProcess:
        database = f"sqlite:///{self.folder / 'fleet.db'}"
        command = ["fieldstation", "fleet", "control", "--port", str(self.control_port), "--database", database]
        self.control = ServerProcess(command, env=self.env, cwd=self.folder)
        self.control.wait_ready(40)
        return self.control

    def start_worker(self) -> ServerProcess:
        command = ["fieldstation", "fleet", "worker", "--control", self.url, "--name", "bench", "--driver", "simulated"]
        command += ["--port", str(self.worker_port), "--dir", str(self.folder / "worker"), "--config", str(self.config)]
        self.worker = ServerProcess(command, cwd=self.folder)
        self.worker.wait_ready(40)
        return self.worker

    def stop(self) -> None:
        self.worker.stop()
        self.control.stop()

    def ask(self, path: str) -> Any:
        with urlopen(self.url + path, timeout=5) as answer:
            return json.load(answer)

    def free(self) -> int:
        with suppress(OSError):
            return int(self.ask("/available")["amount"])
        return -1

    def all_free(self) -> None:
        wait_for(lambda: self.free() == BOARDS, 40)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Start a fleet with these settings of control."""
    running: list[Fleet] = []

    def start(**settings: float) -> Fleet:
        running.append(Fleet(tmp_path, **settings))
        running[0].all_free()
        return running[0]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.bin" for number in range(10)]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    return paths


async def evaluate(
    client: FleetClient, evaluations: list[PulseCountEvaluation], at: int, strike: Callable[[], object], **options: Any
) -> list[Result]:
    """Evaluate; `strike` after result number `at`, while many are under way."""
    results = []
    async for result in client.evaluate(evaluations, **options):
        results.append(result)
        if len(results) == at:
            strike()
    return results


def sent(evaluations: list[PulseCountEvaluation]) -> Counter[tuple[str, str]]:
    return Counter((serial, one.id) for one in evaluations for serial in one.serials)


def delivered(results: list[Result]) -> Counter[tuple[str, str]]:
    return Counter((result.serial, result.evaluation.id) for result in results)


def values_agree(results: list[Result]) -> bool:
    """The same file gives the same value on the same board, so a mixed-up answer would show."""
    seen: dict[tuple[str, Path], set[int]] = {}
    for result in results:
        seen.setdefault((result.serial, result.evaluation.filepath), set()).add(result.value)
    return all(len(values) == 1 for values in seen.values())


async def test_control_killed_and_restarted_loses_no_result_and_no_reservation(
    fleet: Callable[..., Fleet], files: list[Path]
) -> None:
    running = fleet()

    def strike() -> None:
        running.control.kill()
        running.start_control()

    async with FleetClient(running.url, "holder") as client:
        serials = await client.reserve(2)
        before = running.ask("/api/fleet/reservations")
        evaluations = [PulseCountEvaluation(serials, file) for file in files * 15]
        results = await evaluate(client, evaluations, 40, strike)
        assert delivered(results) == sent(evaluations)
        assert [result.reason for result in results if result.failed] == []
        assert values_agree(results)
        after = running.ask("/api/fleet/reservations")
        assert [(row["serial"], row["fence"], row["lease"]) for row in after] == [
            (row["serial"], row["fence"], row["lease"]) for row in before
        ]
        assert sorted(await client.extend(serials)) == sorted(serials)
        again = await evaluate(client, [PulseCountEvaluation(serials, files[0])], 0, lambda: None)
        assert not any(result.failed for result in again)
        assert sorted(await client.end(serials)) == sorted(serials)
    running.all_free()


async def test_control_killed_three_times_over_still_loses_nothing(
    fleet: Callable[..., Fleet], files: list[Path]
) -> None:
    running = fleet(measure_s=0.03)
    async with FleetClient(running.url, "holder") as client:
        serials = await client.reserve(4)
        evaluations = [PulseCountEvaluation(serials, file) for file in files * 10]
        results = []
        async for result in client.evaluate(evaluations):
            results.append(result)
            if len(results) in (50, 150, 250):
                running.control.kill()
                running.start_control()
        assert delivered(results) == sent(evaluations)
        assert not [result.reason for result in results if result.failed]


async def test_worker_killed_its_holders_are_told_and_every_evaluation_ends_once(
    fleet: Callable[..., Fleet], files: list[Path]
) -> None:
    running = fleet(measure_s=0.03)
    async with FleetClient(running.url, "holder") as client:
        told: list[Any] = []
        client.events.subscribe(lambda event: told.append((event.event, event.serial)))
        serials = await client.reserve(2)
        evaluations = [PulseCountEvaluation(serials, file) for file in files * 10]
        results = await evaluate(client, evaluations, 20, running.worker.kill)
        assert delivered(results) == sent(evaluations)
        assert 20 <= sum(not result.failed for result in results) < len(results)
        assert all(result.reason for result in results if result.failed)
        assert {serial for event, serial in told if event == "failure"} == set(serials)
        assert client.serials == []
    assert running.free() == 0
    assert {worker["state"] for worker in running.ask("/api/fleet/workers")} == {"dead"}
    running.start_worker()
    running.all_free()


async def test_worker_killed_and_restarted_in_time_answers_every_evaluation_once(
    fleet: Callable[..., Fleet], files: list[Path]
) -> None:
    running = fleet(dead_after_s=60, measure_s=0.03)

    def strike() -> None:
        running.worker.kill()
        running.start_worker()

    async with FleetClient(running.url, "holder") as client:
        serials = await client.reserve(2)
        evaluations = [PulseCountEvaluation(serials, file) for file in files * 10]
        results = await evaluate(client, evaluations, 20, strike)
        assert delivered(results) == sent(evaluations)
        assert [result.reason for result in results if result.failed] == []
        assert values_agree(results)
        assert client.serials == serials


CLIENT = """
import asyncio, sys
from fieldstation.fleet.client.evaluation import PulseCountEvaluation
from fieldstation.fleet.client.session import FleetClient

async def main(url, *files):
    async with FleetClient(url, "doomed") as client:
        serials = await client.reserve(2)
        async for result in client.evaluate([PulseCountEvaluation(serials, file) for file in files * 100]):
            print(result.serial, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def test_client_killed_its_lease_ends_within_the_grace_time(fleet: Callable[..., Fleet], files: list[Path]) -> None:
    grace_s = 3.0
    running = fleet(grace_s=grace_s, measure_s=0.03)
    client = subprocess.Popen([sys.executable, "-c", CLIENT, running.url, *files], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    with client.stdout:
        delivered_lines = [client.stdout.readline() for _ in range(20)]
    assert all(delivered_lines)
    assert len(running.ask("/api/fleet/reservations")) == 2
    client.send_signal(signal.SIGKILL)
    client.wait()
    killed = time.monotonic()
    wait_for(lambda: running.ask("/api/fleet/reservations") == [], 40)
    # Not at once: within the grace time it could have come back.
    assert time.monotonic() - killed > grace_s / 2
    running.all_free()
    ended = [row for row in running.ask("/api/fleet/events") if "grace" in json.dumps(row)]
    assert ended, running.ask("/api/fleet/events")
