from __future__ import annotations

from fieldstation.site.lines import Lines

TEXT = '''\
# a comment
[site]
name = "x"

[fleet.worker."bench.1"]
control = [
  "http://a:1",   # port = 3 is no key here
]
text = """
port = 4
"""
port = 8081
settings.simulated.boards = 4
[[other]]
'''


def test_a_key_is_found_at_its_line() -> None:
    lines = Lines(TEXT)
    assert lines.of(("site", "name")) == 3
    assert lines.of(("fleet", "worker", "bench.1", "port")) == 12
    assert lines.of(("fleet", "worker", "bench.1", "settings", "simulated", "boards")) == 13
    assert lines.of(("other",)) == 14


def test_what_is_not_there_is_told_at_the_table_around_it() -> None:
    lines = Lines(TEXT)
    assert lines.of(("site", "machine")) == 2
    assert lines.of(("fleet", "worker", "bench.1", "control", "0")) == 6
    assert lines.of(("nothing",)) == 1
