"""The client commands of `fieldstation fleet` against real servers, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner, Result

from fieldstation.cli.main import cli
from fieldstation.fleet.sim import answer
from fieldstation.testing import ServerProcess, reserved_devices, wait_for  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(90)

Run = Callable[..., Result]


@pytest.fixture
def run(servers: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command; all four boards are free before and after."""
    monkeypatch.setenv("FIELDSTATION_CONTROL", servers.url)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str | Path) -> Result:
        return CliRunner().invoke(cli, ["--log-level", "warning", "fleet", *map(str, words)])

    def free() -> bool:
        return len(json.loads(call("devices", "--free", "--json").stdout or "[]")) == 4

    wait_for(free, 40)
    yield call
    call("end", "--all", "--name", "ann")
    wait_for(free, 40)


def output(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_reserve_extend_end_as_json(run: Run) -> None:
    rows = output(run("reserve", "2", "--name", "ann", "--json"))
    serials = [row["serial"] for row in rows]
    assert len(serials) == 2
    assert all(row["lease"].startswith("fsl_") and "lease" not in row["url"] for row in rows)
    found = output(run("reservations", "--json"))
    assert {(row["serial"], row["client"]) for row in found} == {(serial, "ann") for serial in serials}
    assert output(run("extend", serials[0], "--name", "ann", "--json")) == [{"serial": serials[0]}]
    assert len(output(run("extend", "--all", "--name", "ann", "--json"))) == 2
    assert output(run("end", serials[0], "--name", "ann", "--json")) == [{"serial": serials[0]}]
    assert output(run("end", "--all", "--name", "ann", "--json")) == [{"serial": serials[1]}]
    assert output(run("reservations", "--json")) == []


def test_listings_are_tables_and_json(run: Run) -> None:
    assert "bench" in run("workers").stdout
    assert "1111111111111111" in run("devices").stdout
    (worker,) = output(run("workers", "--json"))
    assert worker["name"] == "bench"
    assert {device["state"] for device in output(run("devices", "--json"))} == {"available"}
    assert run("reservations").stdout == "No reservations.\n"
    assert len(output(run("events", "--limit", "1", "--json"))) == 1


def test_evaluate_reserves_evaluates_prints_and_ends(run: Run, files: list[Path]) -> None:
    found = output(run("evaluate", "--amount", "2", "--json", *files))
    assert len(found) == 6
    assert not any(row["failed"] for row in found)
    # The order is that of the files, whichever board was faster.
    assert [row["file"] for row in found] == [str(file) for file in files for _ in range(2)]
    table = run("evaluate", "--wait", "20", "--serial", found[0]["serial"], files[0]).stdout
    assert table.splitlines()[0].split()[:3] == ["serial", "file", "pulses"]
    assert str(found[0]["value"]) in table
    assert output(run("reservations", "--json")) == []


def test_a_failed_evaluation_is_told_with_its_reason_and_exit_code(run: Run, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "no-circuit.asc").write_text("this is no circuit\n")
    result = run("evaluate", "--wait", "20", files[0], tmp_path / "no-circuit.asc")
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if "no-circuit.asc" in line]
    assert "failed: The file" in line
    assert ".." not in line


def test_files_that_cannot_be_bitstreams_are_all_named_before_anything_is_reserved(
    run: Run, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "short.bin").write_bytes(b"x")
    assert run("reserve", "4", "--name", "ann").exit_code == 0  # a reservation would fail
    result = run("evaluate", files[0], tmp_path / "short.bin", tmp_path / "absent.bin", tmp_path)
    assert result.exit_code == 1
    assert "short.bin cannot be evaluated: it has 1 bytes, and the device reads exactly 104090.\n" in result.output
    assert "absent.bin cannot be evaluated: No such file or directory.\n" in result.output
    assert "Is a directory" in result.output
    assert "Nothing was reserved." in result.output


def test_who_waits_is_told_why(run: Run, files: list[Path]) -> None:
    assert run("reserve", "4", "--name", "ann").exit_code == 0
    result = run("evaluate", "--wait", "0.5", files[0])
    assert result.exit_code != 0
    assert "waiting, place 1 in the queue" in result.stderr
    assert "No devices became free within 0.5 s" in str(result.exception)


def test_free_is_what_can_be_reserved(run: Run) -> None:
    run("reserve", "1", "--name", "ann")
    place = {"amount": 4, "name": "bob", "kind": "pulsecount", "args": {}, "ticket": "t"}

    def stand(**more: object) -> None:
        body = json.dumps({**place, "wait_s": 0, **more}).encode()
        request = Request(os.environ["FIELDSTATION_CONTROL"] + "/reserve", body, {"content-type": "application/json"})
        urlopen(request, timeout=10).close()

    stand()
    assert output(run("devices", "--free", "--json")) == []
    assert len([row for row in output(run("devices", "--json")) if row["state"] == "available"]) == 3
    stand(leave=True)
    assert len(output(run("devices", "--free", "--json"))) == 3


def test_reboot_and_delete_name_what_was_accepted(run: Run) -> None:
    (row,) = output(run("reserve", "1", "--name", "ann", "--json"))
    assert output(run("reboot", row["serial"], "--json")) == [{"serial": row["serial"]}]
    assert "reserved" in str(run("delete", row["serial"]).exception)
    assert run("end", row["serial"], "--name", "ann").exit_code == 0
    other = "4444444444444444" if row["serial"] != "4444444444444444" else "3333333333333333"
    assert output(run("delete", other, "--json")) == [{"serial": other}]


def test_clear_asks_first(run: Run) -> None:
    run("reserve", "1", "--name", "ann")
    assert run("clear").exit_code == 1
    assert len(output(run("reservations", "--json"))) == 1
    assert output(run("clear", "--yes", "--json")) == [{"status": "ok"}]
    assert output(run("reservations", "--json")) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["reserve", "0"], "0 is not in the range"),
        (["reserve", "1", "--serial", "x"], "not both"),
        (["reserve", "99"], "99 devices of kind pulsecount were asked for"),
        (["reserve", "1", "--kind", "nonsense"], "No worker offers the kind nonsense"),
        (["reserve", "--serial", "nonsense"], "There is no device nonsense"),
        (["extend"], "Name the serials, or say --all"),
        (["end", "x", "--all"], "Name the serials, or say --all"),
        (["reboot", "nonsense"], "There is no device nonsense"),
        (["devices", "--control", "ftp://x"], "is no server"),
        (["devices", "--token-file", "/nonexistent"], "No such file"),
        (["evaluate"], "Missing argument"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, words: list[str], sentence: str) -> None:
    result = run(*words)
    assert result.exit_code != 0
    assert sentence in result.output + str(result.exception)


def test_the_example_program_counts_on_boards_and_gives_them_back(
    run: Run, servers: ServerProcess, files: list[Path]
) -> None:
    program = Path(__file__).parents[4] / "examples/pulse_count_driver/main.py"
    command = [sys.executable, str(program), servers.url, *map(str, files), "--boards", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    assert len(lines) == 2 * len(files) + 2
    for serial, path, pulses, *_ in lines:
        assert int(pulses) == answer(Path(path).read_bytes(), serial)
    assert output(run("reservations", "--json")) == []


def test_the_fixture_reserves_for_a_test_and_gives_back(
    run: Run,
    reserved_devices: Any,  # noqa: F811 - the fixture
    files: list[Path],
) -> None:
    client = reserved_devices(2)
    assert len(list(client.evaluateBitstreams(files))) == 6
    assert len(output(run("reservations", "--json"))) == 2
    client.stop()
