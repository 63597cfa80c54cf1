"""Pulses are counted, boards recover, holders are alone on their boards."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldstation.fleet import PulseCountClient, PulseCountEvaluation

pytestmark = pytest.mark.timeout(600)

PULSES = 4800
TOLERANCE = 0.001  # two crystals, and the edges of the counted second


def close(pulses: object) -> bool:
    return isinstance(pulses, int) and abs(pulses - PULSES) <= 1 + PULSES * TOLERANCE


def test_a_known_circuit_gives_its_pulses_on_every_board(counter: PulseCountClient, divider: Path) -> None:
    results = list(counter.evaluateBitstreams([divider]))
    assert sorted(result.serial for result in results) == sorted(counter.getSerials())
    assert all(close(result.value) for result in results), [(result.serial, result.value) for result in results]


def test_a_queue_of_circuits_comes_back_whole(counter: PulseCountClient, divider: Path) -> None:
    serials = counter.getSerials()
    evaluations = [PulseCountEvaluation(serials, divider) for _ in range(8)]
    results = list(counter.evaluateEvaluations(evaluations))
    expected = {(serial, one.id) for serial in serials for one in evaluations}
    assert {(result.serial, result.evaluation.id) for result in results} == expected
    assert len(results) == len(expected)
    assert all(close(result.value) for result in results), [(result.serial, result.value) for result in results]


def test_a_short_file_is_a_stated_failure_and_costs_no_board(
    counter: PulseCountClient, divider: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.bin"
    short.write_bytes(divider.read_bytes()[:-1])
    before = counter.getSerials()
    results = list(counter.evaluateBitstreams([short]))
    assert [bool(result.reason) for result in results] == [True] * len(before)
    assert counter.getSerials() == before


def test_a_rebooted_board_counts_again(counter: PulseCountClient, divider: Path) -> None:
    serial = counter.getSerials()[0]
    assert list(counter.reboot([serial], timeout=120)) == []
    (result,) = counter.evaluateBitstreams([divider], serials=[serial])
    assert close(result.value), result.value


def test_a_board_that_somebody_holds_is_not_offered(url: str, counter: PulseCountClient) -> None:
    with PulseCountClient(url, "hardware-suite-other") as other:
        assert not set(other.availableDevices() or []) & set(counter.getSerials())
        assert other.reserveSpecific(counter.getSerials()[0]) is False
