import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldstation.stream.pff import parse_name
from fieldstation.stream.sources.tail import Tail
from fieldstation.testing.frames import header, name, pixels, raw


@pytest.fixture
def path(tmp_path):
    return tmp_path / name("ph256")


def tail_of(path, damaged=None):
    return Tail(path, parse_name(path.name), 1, (damaged if damaged is not None else []).append)


def numbers(frames):
    return [frame.header["pkt_num"] for frame in frames]


def test_frames_come_once_and_in_order_while_the_file_grows(path):
    path.write_bytes(raw("ph256", 0))
    tail = tail_of(path)
    assert numbers(tail.read(10)) == [0]
    with path.open("ab") as file:
        for number in range(1, 6):
            data = raw("ph256", number)
            file.write(data[:300])
            file.flush()
            assert tail.read(10) == []
            file.write(data[300:])
            file.flush()
            [frame] = tail.read(10)
            assert (frame.header, frame.pixels, frame.number) == (
                header("ph256", number),
                pixels("ph256", number),
                number,
            )
    tail.close()


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_way_of_writing_gives_the_same_frames(path, data):
    whole = b"".join(raw("ph256", number) for number in range(6))
    path.write_bytes(b"")
    tail = tail_of(path)
    seen = []
    at = 0
    while at < len(whole):
        size = data.draw(st.integers(100, 1500))
        with path.open("ab") as file:
            file.write(whole[at : at + size])
        at += size
        seen += tail.read(data.draw(st.integers(1, 3)))
    while frames := tail.read(3):
        seen += frames
    tail.close()
    assert numbers(seen) == list(range(6))
    assert [frame.number for frame in seen] == list(range(6))


def test_the_newest_frame_of_a_large_file_is_found_without_reading_it(path, monkeypatch):
    path.write_bytes(b"".join(raw("ph256", number) for number in range(2000)))
    read = 0
    pread = os.pread

    def counting(descriptor, size, offset):
        nonlocal read
        data = pread(descriptor, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    tail = tail_of(path)
    frame = tail.newest()
    assert (frame.number, frame.header["pkt_num"]) == (1999, 1999)
    assert tail.newest() is None
    tail.close()
    assert read < 100_000  # of 1.3 MB


def test_damage_is_set_aside_reported_and_counted_into_the_frame_numbers(path):
    damaged = []
    size = len(raw("ph256"))
    broken = b"X" + raw("ph256", 1)[1:]
    path.write_bytes(raw("ph256", 0) + broken + raw("ph256", 2) + b"?" * 10 + raw("ph256", 3))
    tail = tail_of(path, damaged)
    frames = tail.read(10)
    tail.close()
    # The broken frame keeps its number; ten bytes are too few for one.
    assert [(frame.number, frame.header["pkt_num"]) for frame in frames] == [(0, 0), (2, 2), (3, 3)]
    assert [(d.offset, d.end) for d in damaged] == [(size, 2 * size), (3 * size, 3 * size + 10)]
    assert damaged[0].file == path.name


def test_newest_and_every_agree_on_numbers_in_a_damaged_file(path):
    data = b"".join(raw("ph256", n) + (b"#" * 777 if n % 7 == 3 else b"") for n in range(60))
    path.write_bytes(data)
    every, newest = tail_of(path), tail_of(path)
    all_frames = every.read(1000)
    last = newest.newest()
    every.close()
    newest.close()
    assert len(all_frames) == 60
    assert (last.number, last.header) == (all_frames[-1].number, all_frames[-1].header)


def test_frames_of_changing_size_are_all_read(path):
    sizes = [0, 5000, 3, 60_000, 1]
    path.write_bytes(b"".join(b'{"x": "%s"}\n\n*' % (b"y" * size) + bytes(512) for size in sizes))
    tail = tail_of(path)
    frames = tail.read(10)
    tail.close()
    assert [len(frame.header["x"]) for frame in frames] == sizes


# Two gigabytes read as 64 megabytes do, only longer.
@pytest.mark.parametrize("size", [64 << 20, pytest.param(2 << 30, marks=[pytest.mark.soak, pytest.mark.timeout(120)])])
def test_a_header_line_of_gigabytes_takes_little_memory_and_the_next_frame_is_found(path, size):
    with path.open("wb") as file:
        file.write(b"{")
        file.truncate(size)  # a hole
        file.seek(0, os.SEEK_END)
        file.write(raw("ph256", 5))
    tail = tail_of(path)
    assert tail.read(10) == []
    assert tail.behind  # other files get their turn in between
    while tail.behind:
        frames = tail.read(10)
    assert numbers(frames) == [5]
    tail.close()
    newest = tail_of(path)
    while (frame := newest.newest()) is None:
        assert newest.behind
    assert frame.header["pkt_num"] == 5
    newest.close()


def test_a_truncated_and_rewritten_file_is_read_from_its_front(path):
    path.write_bytes(raw("ph256", 0) + raw("ph256", 1))
    tail = tail_of(path)
    tail.read(10)
    path.write_bytes(raw("ph256", 8))
    tail.check_identity()
    [frame] = tail.read(10)
    assert (frame.number, frame.header["pkt_num"]) == (0, 8)
    tail.close()


def test_another_file_under_the_same_name_is_read_from_its_front(path):
    path.write_bytes(raw("ph256", 0))
    tail = tail_of(path)
    tail.read(10)
    other = path.with_suffix(".new")
    other.write_bytes(raw("ph256", 7) + raw("ph256", 8))
    other.replace(path)
    tail.check_identity()
    assert numbers(tail.read(10)) == [7, 8]
    tail.close()


def test_a_closed_tail_continues_where_it_was(path):
    path.write_bytes(raw("ph256", 0) + raw("ph256", 1))
    tail = tail_of(path)
    tail.read(1)
    tail.close()
    [frame] = tail.read(10)
    assert frame.number == 1
    tail.close()


def test_an_empty_file_gives_nothing(path):
    path.touch()
    tail = tail_of(path)
    assert tail.read(10) == []
    assert tail.newest() is None
    tail.close()
