"""core.metrics: what Prometheus reads."""

from __future__ import annotations

import pytest

from fieldstation.core.metrics import exposition


def test_a_family_has_its_help_its_type_and_a_line_for_each_sample():
    found = exposition({"m_total": ("counter", "What.", [({"process": "mix"}, 3.0), ({"process": "etl"}, 0.25)])})
    assert found == (
        '# HELP m_total What.\n# TYPE m_total counter\nm_total{process="mix"} 3\nm_total{process="etl"} 0.25\n'
    )
    assert exposition({"up": ("gauge", "Up.", [({}, 1.0)])}).endswith("\nup 1\n")


def test_labels_are_escaped():
    found = exposition({"up": ("gauge", "Up.", [({"name": 'a"b\\c\nd'}, 1.0)])})
    assert 'up{name="a\\"b\\\\c\\nd"} 1' in found


@pytest.mark.parametrize("value", [12_345_678, 1_234_567_890.5, 1700000000.123, 2.0**53])
def test_no_digit_is_lost(value):
    line = exposition({"m": ("counter", "What.", [({}, value)])}).splitlines()[-1]
    assert float(line.split()[1]) == value
