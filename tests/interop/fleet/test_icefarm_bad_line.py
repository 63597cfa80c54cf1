"""Published clients, and ours, behind lines that add 50 ms each way and are cut every 5 s.

What a published client cannot survive by itself stands in docs/migrate/icefarm.md; this is what it does survive.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.interop.fleet.conftest import BITSTREAM_BYTES, available

from fieldstation.fleet.client.evaluation import PulseCountEvaluation
from fieldstation.fleet.client.session import FleetClient
from fieldstation.testing import free_port, running, wait_for
from fieldstation.testing.line import Line

pytestmark = pytest.mark.timeout(180)

DELAY_S = 0.05
EVERY_S = 5.0
MEASURE_S = 1.2
WINDOW = 12  # evaluations that a published client sends at once: at most 14 on each device


@dataclass
class FarFleet:
    """A fleet, and the lines by which clients reach its control and its worker."""

    url: str  # of control, past its line
    control: Line
    worker: Line

    @property
    def far_url(self) -> str:
        return f"http://127.0.0.1:{self.control.port}"


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarFleet]:
    folder = tmp_path_factory.mktemp("far")
    (folder / "w.toml").write_text(f"[fleet.worker.settings.simulated]\nmeasure_s = {MEASURE_S}\nboards = 3\n")
    database = f"sqlite:///{folder / 'fleet.db'}"
    port = free_port()
    to_worker = Line(port, DELAY_S)
    with running("fieldstation", "fleet", "control", "--port", "0", "--database", database, cwd=folder) as control:
        to_control = Line(int(control.url.rpartition(":")[2]), DELAY_S)
        words = ["worker", "--control", control.url, "--name", "far", "--driver", "simulated", "--port", str(port)]
        words += ["--url", f"http://127.0.0.1:{to_worker.port}", "--config", str(folder / "w.toml")]
        with running("fieldstation", "fleet", *words, "--dir", folder / "worker", cwd=folder):
            wait_for(lambda: available(control.url) == 3, 60)
            yield FarFleet(control.url, to_control, to_worker)
        to_control.close()
    to_worker.close()


@pytest.fixture
def all_far_free(far: FarFleet) -> Iterator[FarFleet]:
    wait_for(lambda: available(far.url) == 3, 60)
    yield far
    wait_for(lambda: available(far.url) == 3, 90)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("circuits")
    for number in range(WINDOW):
        (folder / f"{number}.bin").write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    return sorted(folder.glob("*.bin"))


@contextmanager
def cut_again_and_again(*lines: Line) -> Iterator[None]:
    over = threading.Event()

    def strike() -> None:
        while not over.wait(EVERY_S):
            for line in lines:
                line.cut()

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_published_client_on_a_slow_line_does_all_that_its_readme_shows(
    published: Any, all_far_free: FarFleet, some: list[Path]
) -> None:
    report = published.run(all_far_free.far_url, "published", "pulsecount", "evaluate", *some[:3])
    assert len(report["results"]) == 2 * 3
    assert len(report["again"]) == 2
    assert len(report["ended_all"]) == 2


def cut_while_boards_work(published: Any, fleet: FarFleet, files: list[Path], lines: list[Line], times: int) -> Any:
    """What a published client reports whose lines were cut so often, every five seconds, while it waited."""
    process = published.start(fleet.far_url, "published", "pulsecount", "hold", *files)
    try:
        assert process.stdout.readline() == "held\n"
        before = [line.connections for line in lines]
        process.stdin.write("go on\n")
        process.stdin.flush()
        for _ in range(times):
            time.sleep(EVERY_S)
            for line in lines:
                line.cut()
        out, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert all(line.connections > count for line, count in zip(lines, before, strict=True))
    return json.loads(out.splitlines()[-1])


def test_a_published_client_gets_all_results_although_its_lines_are_cut_every_five_seconds(
    published: Any, all_far_free: FarFleet, some: list[Path]
) -> None:
    """The requests are with the worker when the first cut comes; what is cut are results and their confirmations."""
    lines = [all_far_free.worker, all_far_free.control]
    report = cut_while_boards_work(published, all_far_free, some, lines, times=2)  # 10 of the 14 s that they need
    assert len({(serial, path) for serial, path, _ in report["results"]}) == 2 * WINDOW
    assert all(value.isdigit() for _, _, value in report["results"])
    assert len(report["ended_all"]) == 2


def test_a_published_client_does_not_notice_that_its_line_to_control_is_cut_every_five_seconds(
    published: Any, all_far_free: FarFleet, some: list[Path]
) -> None:
    files, lines = [*some, *some], [all_far_free.control]
    report = cut_while_boards_work(published, all_far_free, files, lines, times=4)  # 20 of the 29 s that they need
    assert len(report["results"]) == 2 * 2 * WINDOW
    assert len(report["ended_all"]) == 2


async def test_our_client_does_everything_while_all_its_lines_are_cut_every_five_seconds(
    all_far_free: FarFleet, some: list[Path]
) -> None:
    with cut_again_and_again(all_far_free.control, all_far_free.worker):
        async with FleetClient(all_far_free.far_url, "ours") as client:
            serials = await client.reserve(2, wait_s=60)
            asked = [PulseCountEvaluation(serials, file) for file in some]
            results = [result async for result in client.evaluate(asked)]
            assert [result.reason for result in results if result.failed] == []
            assert len({(result.serial, result.evaluation.id) for result in results}) == len(results) == 2 * WINDOW
            assert sorted(await client.end(serials)) == sorted(serials)
