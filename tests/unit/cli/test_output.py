"""cli.output: what people see in tables."""

from __future__ import annotations

from fieldstation.cli.output import print_table


def test_brackets_in_headings_and_cells_are_shown_as_they_are(capsys):
    print_table(["speed [m/s]"], [["no list[int] at [/dev/ttyACM0]"]])
    heading, cell = capsys.readouterr().out.splitlines()
    assert heading.rstrip() == "speed [m/s]"
    assert cell.rstrip() == "no list[int] at [/dev/ttyACM0]"


def test_nothing_is_cut_off(capsys):
    print_table(["a", "b"], [["x" * 300, "y" * 300]])
    out = capsys.readouterr().out
    assert out.count("x") == out.count("y") == 300
    assert "…" not in out


def test_cells_are_for_people(capsys):
    print_table(["a", "b", "c", "d"], [[None, True, {"k": ["v", 2]}, ()]])
    assert capsys.readouterr().out.splitlines()[1].split() == ["yes", "k=v,", "2"]
