"""What a board that is the twin prints, what the state that listens makes of it, and the twin's settings."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from fieldstation.fleet.sim.twin import lines
from fieldstation.fleet.states.bitstream import CANNOT
from fieldstation.fleet.twin.logic import cone
from fieldstation.fleet.twin.model import Answer, Conditions, unknown
from fieldstation.fleet.twin.netlist import Netlist, Pin, Unsupported
from fieldstation.fleet.twin.settings import TwinSettings


def test_count_is_the_firmwares_line() -> None:
    assert lines(Answer(0)) == [", pulses: 0"]


def test_samples_are_the_firmwares_lines() -> None:
    assert lines(Answer(None, samples=(1, 2, 3))) == ["Sampling ADC", "samples: 1,2,3"]


@pytest.mark.parametrize("detail", ["logic feeds back", "two\r\nlines: , pulses: 7", "µ and \x00", ""])
def test_reason_is_one_line_that_the_worker_understands(detail: str) -> None:
    (line,) = lines(unknown("combinational_loop", detail))
    assert line.isascii()
    assert not {"\r", "\n"} & set(line)
    found = CANNOT.search(line)
    assert found is not None
    assert found[1] == "combinational_loop"


def test_defaults_are_the_pico2_ice() -> None:
    assert TwinSettings().conditions() == Conditions()


def test_pins_are_read_from_their_names() -> None:
    assert TwinSettings(counted_pin="io_6_0_1").conditions().counted_pin == Pin(6, 0, 1)


@pytest.mark.parametrize("pin", ["27", "io_6_0_2", "io_6_0", "io_6_0_1 "])
def test_pin_that_is_none_is_refused(pin: str) -> None:
    with pytest.raises(ValidationError, match="counted_pin"):
        TwinSettings(counted_pin=pin)


def test_answer_kept_for_one_question_is_not_that_for_another() -> None:
    asked = [
        Conditions().digest(b"a", sampled=False),
        Conditions().digest(b"a", sampled=True),
        Conditions().digest(b"b", sampled=False),
        Conditions(window_s=2.0).digest(b"a", sampled=False),
        Conditions(counted_pin=Pin(6, 0, 1)).digest(b"a", sampled=False),
    ]
    assert len(set(asked)) == len(asked)


def test_pin_with_an_output_enable_is_not_guessed() -> None:
    special = Unsupported("tristate_pin", "io_18_31_1 has an output enable")
    assert cone(Netlist("5k", 10, 2, 0, pin_unknown=special)).unknown == special


def test_every_setting_and_every_reason_is_in_the_reference() -> None:
    page = (Path(__file__).parents[4] / "docs/reference/twin.md").read_text()
    reasons = set(re.findall(r"`(\w+)`", (Answer.__doc__ or "").partition("one of")[2].partition(". `period`")[0]))
    assert "combinational_loop" in reasons
    missing = [word for word in [*TwinSettings.model_fields, *reasons] if f"| `{word}` |" not in page]
    assert missing == []
