"""The twin against an independent simulation of the designs' sources."""

from pathlib import Path

import pytest
from tests.soak.twin.designs import DESIGNS, LUT_LOOP, build, judge

from fieldstation.fleet.twin.evaluate import evaluate
from fieldstation.fleet.twin.model import Conditions

pytestmark = [pytest.mark.soak, pytest.mark.timeout(120)]

CYCLES = 200_000


def design(built: Path) -> Path:
    """Return a scratch folder with what was built."""
    folder = built / "twin"
    folder.mkdir()
    (built / "top.bin").rename(folder / "design.bin")
    return folder


@pytest.mark.parametrize("name", sorted(DESIGNS))
def test_twin_counts_what_an_independent_simulation_counts(name: str, tmp_path: Path) -> None:
    build(DESIGNS[name], tmp_path)
    answer = evaluate(design(tmp_path), Conditions(clock_hz=CYCLES))
    assert answer.pulses == judge(tmp_path, CYCLES), answer


def test_ring_oscillator_is_not_guessed(tmp_path: Path) -> None:
    build(LUT_LOOP + " assign out=a;", tmp_path)
    answer = evaluate(design(tmp_path), Conditions())
    assert (answer.pulses, answer.reason) == (None, "combinational_loop")
