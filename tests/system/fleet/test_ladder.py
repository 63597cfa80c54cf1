"""Boards that misbehave in every way, behind a real control and worker: evaluations end, and the ladder is climbed.

Health checks run every half second all the while: a check of a device that somebody holds would spoil its results.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from fieldstation.cli.main import cli
from fieldstation.fleet.client.evaluation import PulseCountEvaluation
from fieldstation.fleet.client.session import FleetClient
from fieldstation.fleet.sim import answer
from fieldstation.testing import ServerProcess, eventually, running, wait_for

pytestmark = pytest.mark.timeout(120)

MUTE, STUCK, SPARE = "MUTE", "STUCK", "SPARE"
# What each board does wrong while it is held; the numbers say how often.
FAULTS = {
    "DROPS": {"drop_byte": 1},
    "HANGS": {"hang": 1},
    "BABBLES": {"garbage": 1},
    "LEAVES": {"unplug": 1},
    "CHANGES": {"wrong_firmware": 1},
    STUCK: {"stuck": 1},
}
BITSTREAM_BYTES = 104_090


class Bench:
    """A control and a worker. `tell` says something to the boards."""

    def __init__(self, control: ServerProcess, path: Path) -> None:
        self.url = control.url
        self.socket = str(path)

    def ask(self, path: str) -> Any:
        with urlopen(self.url + path, timeout=10) as found:
            return json.load(found)

    def device(self, serial: str) -> dict[str, Any]:
        return next((row for row in self.ask("/api/fleet/devices") if row["serial"] == serial), {})

    def steps(self, serial: str) -> list[str]:
        """What was done for a device, oldest first."""
        return [row["step"] for row in reversed(self.ask(f"/api/fleet/history?serial={serial}"))]

    def tell(self, **command: Any) -> None:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(self.socket)
            line.sendall(json.dumps(command).encode() + b"\n")
            assert json.loads(line.makefile().readline()) == {"ok": True}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("ladder")
    boards = folder / "boards"
    cut = [sys.executable, "-m", "fieldstation.fleet.sim.power", str(boards), "{serial}"]
    settings = {"watchdog_s": 0.3, "answer_s": 1.0, "test_s": 1.0, "flash_s": 2.5, "replug_s": 3.0, "retry_s": 0.1}
    care = {"check_s": 0.5, "retries": 1, "reflashes": 1, "power_cycles": 1, "power_cycle": cut, "back_s": 5}
    config = folder / "worker.toml"
    config.write_text(
        "[fleet.worker.settings.simulated]\n"
        + f"socket = {json.dumps(str(boards))}\nserials = {json.dumps([*FAULTS, MUTE, SPARE])}\n"
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        + "[fleet.worker.care]\n"
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in care.items())
    )
    worker = (
        "fieldstation",
        "fleet",
        "worker",
        "--config",
        config,
        "--name",
        "w",
        "--port",
        "0",
        "--dir",
        folder / "w",
    )
    control = ("fieldstation", "fleet", "control", "--port", "0", "--database", f"sqlite:///{folder / 'fleet.db'}")
    with (
        running(*control, deadline_s=60) as served,
        running(*worker, "--control", served.url, "--driver", "simulated", deadline_s=60),
    ):
        found = Bench(served, boards)
        wait_for(lambda: found.ask("/available")["amount"] == len(FAULTS) + 2, 60)
        found.tell(cmd="habits", serial=MUTE, faults={"mute": 1})
        yield found


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.bin" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    return paths


def climbed(steps: list[str], *expected: str) -> bool:
    """Tell whether these steps are there in this order, whatever is between them."""
    rest = iter(steps)
    return all(step in rest for step in expected)


async def test_every_evaluation_ends_in_its_result_or_a_stated_failure_and_the_steps_are_in_the_history(
    bench: Bench, files: list[Path]
) -> None:
    bench.tell(cmd="habits", serial="CHANGES", faults=FAULTS["CHANGES"])
    async with FleetClient(bench.url, "holder") as client:
        await client.reserve_serials(list(FAULTS), kind="pulsecount")
        for serial, faults in FAULTS.items():
            if serial != "CHANGES":
                bench.tell(cmd="habits", serial=serial, faults=faults)
        async with asyncio.timeout(60):
            found = {
                (one.serial, one.evaluation.filepath): one
                async for one in client.evaluate([PulseCountEvaluation(list(FAULTS), file) for file in files])
            }
        assert len(found) == len(FAULTS) * len(files)
        for (serial, file), one in found.items():
            if serial == STUCK:
                assert one.failed
                assert one.reason
            else:
                assert one.value == answer(file.read_bytes(), serial), one.reason
        await eventually(lambda: STUCK not in client.serials, 60)
    for serial in FAULTS:
        wait_for(lambda s=serial: bench.device(s).get("state") == "available", 60)
    for serial in ("DROPS", "HANGS", "BABBLES", "CHANGES"):
        assert "reflash for its holder" in bench.steps(serial), serial
        assert "broken" not in bench.steps(serial), serial
    assert climbed(bench.steps(STUCK), "broken", "reflash", "broken", "power cycle", "recovered"), bench.steps(STUCK)


def test_a_bad_idle_device_is_taken_out_climbs_every_rung_and_waits_for_an_operator(bench: Bench) -> None:
    # Its default firmware has been silent since before anybody asked for it.
    wait_for(lambda: bench.device(MUTE).get("health") == "quarantined", 60)
    rungs = ("broken", "retry", "broken", "reflash", "broken", "power cycle", "broken", "quarantined")
    assert tuple(bench.steps(MUTE)) == rungs
    assert "health check" in bench.ask(f"/api/fleet/history?serial={MUTE}")[-1]["detail"]
    assert MUTE not in bench.ask("/devices")
    bench.tell(cmd="unplug", serial=MUTE)
    wait_for(lambda: bench.device(MUTE) == {}, 60)
    bench.tell(cmd="habits", serial=MUTE, faults={"mute": 0})
    bench.tell(cmd="plug", serial=MUTE)
    wait_for(lambda: bench.device(MUTE).get("health") == "quarantined", 60)
    assert fleet(bench, "maintenance", MUTE, "off", "--reason", "soldered")["health"] != "quarantined"
    wait_for(lambda: bench.device(MUTE).get("state") == "available", 60)
    assert fleet(bench, "history", MUTE)[0] | {"id": 0, "at": ""} == {
        "id": 0, "at": "", "serial": MUTE, "worker": "", "user": "local", "step": "maintenance off",
        "detail": "soldered",
    }  # fmt: skip


def test_a_device_in_maintenance_is_left_alone_until_it_is_put_back(bench: Bench) -> None:
    assert fleet(bench, "maintenance", SPARE, "on", "--reason", "new fan")["reason"] == "new fan"
    assert SPARE not in bench.ask("/devices")
    # A person unplugs it, and what comes back says nothing: neither is anything to the worker.
    bench.tell(cmd="habits", serial=SPARE, faults={"mute": 1})
    bench.tell(cmd="unplug", serial=SPARE)
    wait_for(lambda: bench.device(SPARE) == {}, 60)
    bench.tell(cmd="plug", serial=SPARE)
    wait_for(lambda: bench.device(SPARE).get("health") == "maintenance", 60)
    bench.tell(cmd="habits", serial=SPARE, faults={"mute": 0})
    fleet(bench, "maintenance", SPARE, "off")
    wait_for(lambda: bench.device(SPARE).get("state") == "available", 60)
    assert bench.steps(SPARE) == ["maintenance on", "maintenance off"]


def fleet(bench: Bench, *words: str) -> Any:
    """Run a client command; returns what it printed as JSON, a single row without its list."""
    result = CliRunner().invoke(cli, ["--log-level", "warning", "fleet", *words, "--json", "--control", bench.url])
    assert result.exit_code == 0, result.output + str(result.exception)
    rows = json.loads(result.stdout)
    return rows[0] if words[0] == "maintenance" else rows


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["maintenance", SPARE, "on"], "Say why with --reason"),
        (["maintenance", "nonsense", "off"], "There is no device nonsense"),
        (["maintenance", SPARE, "maybe"], "is not one of"),
        (["history", "nonsense"], "There is no device nonsense"),
    ],
)
def test_bad_input_is_one_sentence(bench: Bench, words: list[str], sentence: str) -> None:
    result = CliRunner().invoke(cli, ["fleet", *words, "--control", bench.url])
    assert result.exit_code != 0
    assert sentence in result.output + str(result.exception)
