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
GRACE_S = 3.0
BITSTREAM_BYTES = 104_090


class Fleet:
    """A control and a worker with four boards, each on a port that it keeps over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control_port, self.worker_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.control_port}"
        self.settings: dict[str, float] = {"grace_s": GRACE_S}
        self.config = folder / "worker.toml"
        self.config.write_text(f"[fleet.worker.settings.simulated]\nmeasure_s = 0.02\nboards = {BOARDS}\n")
        self.control = self.start_control()
        self.worker = self.start_worker()

    def start_control(self) -> ServerProcess:
        database = f"sqlite:///{self.folder / 'fleet.db'}"
        command = ["fieldstation", "fleet", "control", "--port", str(self.control_port), "--database", database]
        env = {f"FIELDSTATION_FLEET_CONTROL_{key.upper()}": str(value) for key, value in self.settings.items()}
        self.control = ServerProcess(command, env=env, cwd=self.folder)
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

    def with_settings(self, **settings: float) -> None:
        """Restart control when it does not have these settings."""
        if self.settings != settings:
            self.settings = settings
            self.control.stop()
            self.start_control()
            self.all_free()

    def free(self) -> int:
        with suppress(OSError):
            return int(self.ask("/available")["amount"])
        return -1

    def all_free(self) -> None:
        wait_for(lambda: self.free() == BOARDS, 40)


@pytest.fixture(scope="module")
def one_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    running = Fleet(tmp_path_factory.mktemp("fleet"))
    yield running
    running.stop()


@pytest.fixture
def fleet(one_fleet: Fleet) -> Fleet:
    """The fleet with all its boards free; a client that is gone loses its devices after GRACE_S."""
    one_fleet.with_settings(grace_s=GRACE_S)
    one_fleet.all_free()
    return one_fleet


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


async def test_control_killed_and_restarted_loses_no_result_and_no_reservation(fleet: Fleet, files: list[Path]) -> None:

    def strike() -> None:
        fleet.control.kill()
        fleet.start_control()

    async with FleetClient(fleet.url, "holder") as client:
        serials = await client.reserve(2)
        before = fleet.ask("/api/fleet/reservations")
        evaluations = [PulseCountEvaluation(serials, file) for file in files * 15]
        results = await evaluate(client, evaluations, 40, strike)
        assert delivered(results) == sent(evaluations)
        assert [result.reason for result in results if result.failed] == []
        assert values_agree(results)
        after = fleet.ask("/api/fleet/reservations")
        assert [(row["serial"], row["fence"], row["lease"]) for row in after] == [
            (row["serial"], row["fence"], row["lease"]) for row in before
        ]
        assert sorted(await client.extend(serials)) == sorted(serials)
        again = await evaluate(client, [PulseCountEvaluation(serials, files[0])], 0, lambda: None)
        assert not any(result.failed for result in again)
        assert sorted(await client.end(serials)) == sorted(serials)
    fleet.all_free()


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_control_killed_three_times_over_still_loses_nothing(fleet: Fleet, files: list[Path]) -> None:
    async with FleetClient(fleet.url, "holder") as client:
        serials = await client.reserve(4)
        evaluations = [PulseCountEvaluation(serials, file) for file in files * 10]
        results = []
        async for result in client.evaluate(evaluations):
            results.append(result)
            if len(results) in (50, 150, 250):
                fleet.control.kill()
                fleet.start_control()
        assert delivered(results) == sent(evaluations)
        assert not [result.reason for result in results if result.failed]


async def test_worker_killed_its_holders_are_told_and_every_evaluation_ends_once(
    fleet: Fleet, files: list[Path]
) -> None:
    async with FleetClient(fleet.url, "holder") as client:
        told: list[Any] = []
        client.events.subscribe(lambda event: told.append((event.event, event.serial)))
        serials = await client.reserve(2)
        evaluations = [PulseCountEvaluation(serials, file) for file in files * 10]
        results = await evaluate(client, evaluations, 20, fleet.worker.kill)
        assert delivered(results) == sent(evaluations)
        assert 20 <= sum(not result.failed for result in results) < len(results)
        assert all(result.reason for result in results if result.failed)
        assert {serial for event, serial in told if event == "failure"} == set(serials)
        assert client.serials == []
    assert fleet.free() == 0
    assert {worker["state"] for worker in fleet.ask("/api/fleet/workers")} == {"dead"}
    fleet.start_worker()
    fleet.all_free()


async def test_worker_killed_and_restarted_in_time_answers_every_evaluation_once(
    fleet: Fleet, files: list[Path]
) -> None:
    # Long enough for a restart on a busy machine; the killed worker is unreachable, and not dead yet.
    fleet.with_settings(dead_after_s=60, return_s=60)

    def strike() -> None:
        fleet.worker.kill()
        fleet.start_worker()

    async with FleetClient(fleet.url, "holder") as client:
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


def test_client_killed_its_lease_ends_within_the_grace_time(fleet: Fleet, files: list[Path]) -> None:
    client = subprocess.Popen([sys.executable, "-c", CLIENT, fleet.url, *files], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert all(client.stdout.readline() for _ in range(20))
    assert len(fleet.ask("/api/fleet/reservations")) == 2
    client.send_signal(signal.SIGKILL)
    client.communicate()
    killed = time.monotonic()
    wait_for(lambda: fleet.ask("/api/fleet/reservations") == [], 40)
    # Not at once: within the grace time it could have come back.
    assert time.monotonic() - killed > GRACE_S / 2
    fleet.all_free()
    assert next(row["detail"] for row in fleet.ask("/api/fleet/events")) == "its holder has gone"
