"""kit.transfer without sockets: the progress bar."""

from __future__ import annotations

import pytest

from fieldstation.kit.transfer import drawn


@pytest.mark.parametrize("how", ["done", "broken off"])
def test_a_bar_on_a_terminal_leaves_the_next_line_free(capsys, monkeypatch, how):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    try:
        with drawn("run.csv") as draw:
            draw(1_000_000, 2_000_000)
            if how == "broken off":
                raise ConnectionError
            draw(2_000_000, 2_000_000)
    except ConnectionError:
        pass
    shown = capsys.readouterr().err
    assert "\rrun.csv" in shown
    assert " 50 % 1.0 MB" in shown
    assert ("100 % 2.0 MB\n" in shown) == (how == "done")
    assert shown.endswith("\n")


def test_without_a_terminal_nothing_is_drawn(capsys):
    with drawn("run.csv") as draw:
        draw(1, 1)
    assert capsys.readouterr().err == ""
