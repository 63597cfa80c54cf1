import contextlib
from itertools import chain, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldstation.stream.hub import Every, Hub
from fieldstation.stream.model import Wanted
from fieldstation.stream.pff import parse_name
from fieldstation.stream.series import Series
from fieldstation.stream.sources.run import FRAMES_PER_TURN, RunFollower
from fieldstation.stream.sources.tail import Tail
from fieldstation.stream.wire.codec import Encoder
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.testing.frames import dim, name, pixels, raw

COUNT = 5
encoder = Encoder("host")


def file_of(folder, kind, frames):
    path = folder / name(kind)
    path.write_bytes(b"".join(frames))
    return path


@contextlib.contextmanager
def after_the_first(path):
    with contextlib.closing(Tail(path, parse_name(path.name), 1, lambda _: None)) as tail:
        tail.read(1)
        yield tail


def one_by_one(path):
    with after_the_first(path) as tail:
        return tail.read(COUNT)


def all_at_once(path):
    with after_the_first(path) as tail:
        return tail.series(COUNT)


def message(payload):
    return pb.StreamImagesResponse.FromString(payload)


@pytest.mark.parametrize("kind", ["img8", "img16", "ph1024"])
def test_frames_read_all_at_once_are_those_read_one_by_one(tmp_path, kind):
    path = file_of(tmp_path, kind, [raw(kind, number) for number in range(COUNT + 1)])
    expected = one_by_one(path)
    with after_the_first(path) as tail:
        series = tail.series(COUNT)
        assert list(series) == expected
        assert (series[-1], series[1:3]) == (expected[-1], expected[1:3])
        assert (tail.offset, tail.number) == (path.stat().st_size, COUNT + 1)
        assert tail.series(1) is None


@pytest.mark.parametrize("bright", [1, COUNT])
@pytest.mark.parametrize("kind", ["img8", "img16", "ph1024"])
def test_messages_made_all_at_once_say_what_those_made_one_by_one_say(tmp_path, kind, bright):
    frames = [dim(kind, number) for number in range(COUNT + 1)]
    frames[bright] = raw(kind, bright)
    path = file_of(tmp_path, kind, frames)
    series = all_at_once(path)
    payloads = encoder.series(series, 17)
    assert [message(payload) for payload in payloads] == [message(encoder.response(one, 17)) for one in series]


def assert_judged_alike(path):
    """What is read all at once is what is read one by one, or nothing."""
    series = all_at_once(path)
    if series is not None:
        alone = one_by_one(path)
        assert list(series) == alone
        told = [[number for part in one.header.values() for number in part.values()] for one in alone]
        assert series.numbers.tolist() == told


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, COUNT), st.integers(0, 440), st.integers(0, 255))
def test_a_wrong_byte_anywhere_in_a_header_is_judged_as_if_it_were_read_by_itself(tmp_path, number, at, byte):
    frames = [bytearray(raw("img16", one)) for one in range(COUNT + 1)]
    frames[number][min(at, len(frames[0]) - 2049)] = byte
    assert_judged_alike(file_of(tmp_path, "img16", frames))


def test_whatever_stands_in_a_field_is_judged_as_if_it_were_read_by_itself(tmp_path):
    sound = 0
    for field in map(bytes, product(b" 017-.x\n", repeat=3)):
        texts = [b'{"quabo_0": {"a":%b, "b": 5}}\n\n*' % text for text in [b" 12"] * COUNT + [field]]
        path = file_of(tmp_path, "img8", [text + pixels("img8") for text in texts])
        assert_judged_alike(path)
        sound += all_at_once(path) is not None
    assert sound == 3 + 2 * 3 + 2 * 3 * 3  # one figure, two, three; the first one is no 0 unless it is alone


@pytest.mark.parametrize(
    "text",
    [
        b'{ "quabo_num": 1, "tv_sec": 12}',  # quarters take turns
        b'{ "a": 12, "a": 13}',
        b'{ "a: 1": 12}',
        b'{ "a": 1.5, "b": 2}',
        b'{ "a": -15, "b": 2}',
        b'{ "a": "7", "b": 2}',
        b'{ "a": 1234567890123456}',
        b"{ }",
    ],
)
def test_headers_that_are_more_than_plain_numbers_are_read_one_by_one(tmp_path, text):
    path = file_of(tmp_path, "img8", [text + b"\n\n*" + pixels("img8", number) for number in range(COUNT + 1)])
    assert all_at_once(path) is None
    assert len(one_by_one(path)) == COUNT


def test_what_follows_the_last_frame_must_be_a_frame(tmp_path):
    path = file_of(tmp_path, "img16", [raw("img16", number) for number in range(COUNT + 1)] + [b"garbage"])
    assert all_at_once(path) is None


def test_a_reader_that_is_behind_gives_every_frame_to_the_clients_in_order(tmp_path):
    total = 3 * FRAMES_PER_TURN + 10
    run = tmp_path / "module_1" / "obs_x"
    run.mkdir(parents=True)
    file_of(run, "img16", [dim("img16", number) for number in range(total)])
    follower = RunFollower(tmp_path)
    follower.rescan()
    turns = list(chain.from_iterable(iter(lambda: follower.read(every=True), [])))
    follower.close()
    assert [len(turn) for turn in turns if isinstance(turn, Series)] == [FRAMES_PER_TURN] * 2
    hub = Hub(encoder.response, encoder.series)
    client = Every(Wanted(True, True, frozenset(), 0.0), "", total)
    hub.add(client)
    for turn in turns:
        hub.publish(turn)
    sent = []
    while client.following() is not None:
        sent += [message(shared.payload).pano_image.frame_number for shared in client.take()]
    assert sent == list(range(total))
