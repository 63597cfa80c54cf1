"""`fleet worker --simulate N --twin`: what a client gets from boards that are the twin."""

from __future__ import annotations

import gzip
import json
import logging
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.fleet.twin.conftest import BOARDS, DATA, ROOT, TwinFleet, circuits, design

from fieldstation.fleet import EvaluationFailed, PulseCountClient, VarMaxClient
from fieldstation.testing import program

pytestmark = pytest.mark.timeout(120)

LOG = logging.getLogger("twin-test")


def saved(folder: Path, name: str, data: bytes) -> Path:
    path = folder / f"{name}.bin"
    path.write_bytes(data)
    return path


def test_circuits_give_their_frequency_within_one_pulse(fleet: TwinFleet, tmp_path: Path) -> None:
    expected = circuits(tmp_path)
    with PulseCountClient(fleet.url, "ours", LOG) as client:
        client.reserve(BOARDS, wait_for_available=True)
        results = list(client.evaluateBitstreams(list(expected)))
    assert len(results) == BOARDS * len(expected)
    for result in results:
        assert abs(result.value - expected[Path(result.evaluation.filepath)]) <= 1, result


def test_circuit_as_text_is_packed_and_counts_the_same(fleet: TwinFleet, tmp_path: Path) -> None:
    packed, text = saved(tmp_path, "divider", design("divider")), tmp_path / "text.asc"
    subprocess.run([program("icepack").with_name("iceunpack"), packed, text], check=True)
    with PulseCountClient(fleet.url, "ours", LOG) as client:
        client.reserve(1, wait_for_available=True)
        assert [result.value for result in client.evaluateBitstreams([text])] == [4800]


def test_what_cannot_be_known_ends_once_with_its_reason_and_the_board_goes_on(fleet: TwinFleet, tmp_path: Path) -> None:
    files = {
        saved(tmp_path, "ring", design("ring")): "combinational_loop",
        saved(tmp_path, "noise", random.Random(7).randbytes(104_090)): "undecodable",
        saved(tmp_path, "divider", design("divider")): "",
    }
    with PulseCountClient(fleet.url, "ours", LOG) as client:
        client.reserve(1, wait_for_available=True)
        results = list(client.evaluateBitstreams(list(files)))
        assert len(client.getSerials()) == 1, "a design that cannot be known must not cost the board"
    assert {Path(result.evaluation.filepath): result.code for result in results} == files
    for result in results:
        failed = bool(files[Path(result.evaluation.filepath)])
        assert (result.value is EvaluationFailed) == failed
        assert result.reason.startswith("The board cannot measure this circuit: ") == failed


def test_variance_is_that_of_the_filtered_waveform_and_the_same_again(fleet: TwinFleet, tmp_path: Path) -> None:
    path = saved(tmp_path, "divider", design("divider"))
    with VarMaxClient(fleet.url, "ours", LOG) as client:
        client.reserve(BOARDS, wait_for_available=True)
        values = [result.value for result in client.evaluateBitstreams([path])]
    assert len(values) == BOARDS
    assert len(set(values)) == 1, "the model is deterministic: two boards see the same"
    assert 0 < values[0] < 4095


def test_the_hardware_suite_passes_on_boards_that_are_the_twin(fleet: TwinFleet) -> None:
    command = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests/hardware"), "--url", fleet.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_command_line_shows_the_reason(fleet: TwinFleet, tmp_path: Path) -> None:
    ring = saved(tmp_path, "ring", design("ring"))
    command = [sys.executable, "-m", "fieldstation", "fleet", "evaluate", "--control", fleet.url, "--wait", "30", ring]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=wide())
    assert shown.returncode == 1
    assert "failed (combinational_loop): " in " ".join(shown.stdout.split()), shown.stdout + shown.stderr
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=False).stdout)
    assert [(row["failed"], row["code"]) for row in told] == [(True, "combinational_loop")]


def wide() -> dict[str, str]:
    import os

    return {**os.environ, "COLUMNS": "200"}


@pytest.mark.timeout(300)
def test_example_search_reaches_its_target_and_draws_its_way_there(fleet: TwinFleet, tmp_path: Path) -> None:
    script, picture = ROOT / "examples/evolve/evolve.py", tmp_path / "fitness.png"
    options = ["--control", fleet.url, "--boards", str(BOARDS), "--seed", "6", "--png", picture]
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    generations = done.stdout.splitlines()
    assert 2 <= len(generations) <= 12
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_answers_are_kept_on_disk_and_nothing_else_is(fleet: TwinFleet, tmp_path: Path) -> None:
    with PulseCountClient(fleet.url, "ours", LOG) as client:
        client.reserve(1, wait_for_available=True)
        list(client.evaluateBitstreams([saved(tmp_path, "divider", design("divider"))]))
    assert {path.suffix for path in fleet.cache.iterdir()} == {".json"}


def test_missing_compiler_is_one_sentence_with_the_command(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "iceunpack").symlink_to(shutil.which("iceunpack") or "")
    command = [sys.executable, "-m", "fieldstation", "fleet", "worker", "--simulate", "1", "--twin", "--port", "0"]
    done = subprocess.run(
        [*command, "--dir", tmp_path / "state"],
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "apt-get install gcc" in done.stderr
    assert "Traceback" not in done.stderr


def test_twin_without_simulated_boards_is_refused() -> None:
    command = [sys.executable, "-m", "fieldstation", "fleet", "worker", "--twin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--simulate" in done.stderr


@pytest.mark.parametrize(("key", "value"), [("counted_pin", "35"), ("window_s", 0), ("clock", 1)])
def test_wrong_setting_is_named(tmp_path: Path, key: str, value: object) -> None:
    config = tmp_path / "worker.toml"
    config.write_text(f"[fleet.worker.settings.simulated.twin]\n{key} = {json.dumps(value)}\n")
    command = [sys.executable, "-m", "fieldstation", "fleet", "worker", "--simulate", "1", "--twin"]
    done = subprocess.run([*command, "--config", config], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert key in done.stderr
    assert "Traceback" not in done.stderr


def test_shipped_designs_are_whole() -> None:
    assert all(len(gzip.decompress(path.read_bytes())) == 104_090 for path in DATA.glob("*.bin.gz"))
