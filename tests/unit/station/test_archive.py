from __future__ import annotations

import datetime

from fieldstation.station.archive import DayFiles, line_of, lines_of, merged, read_day_file, write_day

NOON = 1_700_000_000.25  # 2023-11-14
DAY = "2023-11-14.csv"


def test_a_row_has_the_documented_form():
    assert line_of(NOON, '{"variant":"data","data":{"t":1.5}}') == (
        '1700000000.25,"{""variant"":""data"",""data"":{""t"":1.5}}"\n'
    )


def test_rows_of_one_time_are_written_as_each_alone_would_be():
    bodies = ['{"a":"x"}', '{"b":""}', '{"c":1}']
    assert lines_of(NOON, bodies) == "".join(line_of(NOON, body) for body in bodies)


def test_each_row_goes_to_the_file_of_its_utc_day(tmp_path):
    days = DayFiles(tmp_path / "messages")
    days.append([(NOON, '{"a":1}'), (NOON + 86400, '{"b":2}')])
    days.append([(NOON, '{"c":3}')])
    assert (tmp_path / "messages" / DAY).read_text().splitlines()[0] == "timestamp,message_body"
    assert list(read_day_file(tmp_path / "messages" / DAY)) == [(NOON, '{"a":1}'), (NOON, '{"c":3}')]
    assert list(read_day_file(tmp_path / "messages" / "2023-11-15.csv")) == [(NOON + 86400, '{"b":2}')]


def test_fault_power_loss_a_torn_last_line_costs_only_itself(tmp_path):
    path = tmp_path / DAY
    first, second = line_of(NOON, '{"a":1}'), line_of(NOON, '{"b":2}')
    for cut in range(len(second) - 1):
        path.write_text("timestamp,message_body\n" + first + second[:cut])
        assert list(read_day_file(path)) == [(NOON, '{"a":1}')]


def test_lines_behind_a_torn_one_are_read(tmp_path):
    path = tmp_path / DAY
    path.write_text(line_of(NOON, '{"a":1}') + '1700,"{""b"n' + "\n" + line_of(NOON, '{"c":3}'))
    assert [body for _, body in read_day_file(path)] == ['{"a":1}', '{"c":3}']


def test_text_with_quotes_commas_and_escaped_newlines_comes_back(tmp_path):
    body = '{"variant":"log","subject":"a \\"b\\", c","body":"x\\ny"}'
    DayFiles(tmp_path).append([(NOON, body)])
    assert list(read_day_file(tmp_path / DAY)) == [(NOON, body)]


def test_store_and_file_are_merged_without_doubling():
    stored = [(2.0, "b"), (3.0, "c"), (3.0, "c")]
    filed = [(1.0, "a"), (2.0, "b"), (3.0, "c")]
    assert merged(stored, filed) == [(1.0, "a"), (2.0, "b"), (3.0, "c"), (3.0, "c")]


def test_a_failed_append_is_no_failure_of_the_caller(tmp_path):
    (tmp_path / "messages").write_text("a file where the folder should be")
    DayFiles(tmp_path / "messages").append([(NOON, "{}")])


def test_a_day_is_written_anew_in_one_step(tmp_path):
    assert write_day(tmp_path / "x" / DAY, [(NOON, '{"a":1}')]) == 1
    assert [path.name for path in (tmp_path / "x").iterdir()] == [DAY]
    assert datetime.date.fromisoformat(DAY[:10])
