"""Frames between agents and the writer, however the bytes arrive."""

from __future__ import annotations

import pytest

from fieldstation.station import frames


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_frames_come_out_as_they_went_in_however_they_are_cut(size):
    entries = [
        (["ok", None], []),
        (["add", ["id-1"], 1.5, [0], None], ['{"t":"20 °C"}']),
        (["x"], ["", "b", "ß" * 500]),
    ]
    stream = b"".join(frames.pack(entry, [line.encode() for line in lines]) for entry, lines in entries)
    unpacker = frames.Unpacker()
    found = [entry for n in range(0, len(stream), size) for entry in unpacker.feed(stream[n : n + size])]
    assert found == [[*entry, lines] if lines else entry for entry, lines in entries]


def test_a_line_that_is_two_is_refused_before_it_is_sent():
    with pytest.raises(ValueError, match="broken"):
        frames.pack(["add"], [b"one\ntwo"])


@pytest.mark.parametrize("payload", [b"5", b"{}", b"[]", b"5\nx", b"nonsense", b"\xff", b"[1"])
def test_what_is_no_list_is_nonsense(payload):
    with pytest.raises(ValueError):
        list(frames.Unpacker().feed(frames.LENGTH.pack(len(payload)) + payload))


def test_a_frame_of_gigabytes_is_not_waited_for():
    with pytest.raises(ValueError, match="bytes"):
        list(frames.Unpacker().feed(b"\xff\xff\xff\xff"))
