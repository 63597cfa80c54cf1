import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldstation.stream.errors import PffNameError
from fieldstation.stream.model import PRODUCTS
from fieldstation.stream.pff import (
    MAX_HEADER_BYTES,
    Damaged,
    Found,
    file_name,
    format_frame,
    format_header,
    next_frame,
    parse_header,
    parse_name,
)
from fieldstation.testing.frames import header, pixels, raw

# No judgement on speed: a machine may be slow, and how slow is none of these tests' affair.
bounded = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
IMAGE = 8  # bytes; small images make many cut points cheap

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(st.text(), values, max_size=5)
images = st.binary(min_size=IMAGE, max_size=IMAGE)


def walk(data, image_bytes=IMAGE):
    """All frames of a buffer, and the bytes that were no frame."""
    found, damaged, at = [], 0, 0
    while (result := next_frame(data, at, image_bytes)) is not None:
        if isinstance(result, Found):
            found.append((result.header, data[result.image_at : result.end]))
        else:
            assert result.end > at
            damaged += result.end - at
        at = result.end
    return found, damaged, at


def plain(head, image):
    return json.dumps(head).encode() + b"\n\n*" + image


@bounded
@given(st.lists(st.tuples(headers, images), max_size=6))
def test_any_header_and_any_pixels_come_back(frames):
    # Pixels may hold anything, also what looks like the start of a frame.
    data = b"".join(plain(*frame) for frame in frames)
    assert walk(data)[0] == frames


@bounded
@given(st.lists(st.tuples(headers, images), min_size=1, max_size=4), st.data())
def test_a_file_cut_anywhere_gives_its_complete_frames_and_waits_for_the_rest(frames, data):
    pieces = [plain(*frame) for frame in frames]
    whole = b"".join(pieces)
    cut = data.draw(st.integers(0, len(whole)))
    complete, end = 0, 0
    for piece in pieces:
        if end + len(piece) > cut:
            break
        complete, end = complete + 1, end + len(piece)
    found, damaged, at = walk(whole[:cut])
    assert found == frames[:complete]
    assert (damaged, at) == (0, end)


# Garbage that holds a complete frame is not garbage, so it has none of a frame's marks.
garbage = st.binary(min_size=1, max_size=200).filter(lambda b: b"{" not in b)


@bounded
@given(st.lists(st.tuples(st.sampled_from(["ph256", "img8"]), st.integers(0, 99), garbage | st.just(b"")), max_size=5))
def test_garbage_between_frames_loses_no_frame(parts):
    for product in ("ph256", "img8"):
        mine = [(number, junk) for kind, number, junk in parts if kind == product]
        data = b"".join(junk + raw(product, number) for number, junk in mine)
        found, damaged, _ = walk(data, PRODUCTS[product].image_bytes)
        assert found == [(header(product, number), pixels(product, number)) for number, _ in mine]
        assert damaged == sum(len(junk) for _, junk in mine)


@bounded
@given(st.binary(max_size=3000))
def test_any_bytes_are_read_without_an_error_and_with_progress(data):
    walk(data, 16)


@pytest.mark.parametrize("product", PRODUCTS)
def test_frames_have_the_documented_sizes(product):
    sizes = {"img16": 2540, "img8": 1516, "ph256": 636, "ph1024": 2540}
    assert len(raw(product)) == sizes[product]


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_written_frame_is_read_back(product):
    data = raw(product, 7)
    found = next_frame(data, 0, PRODUCTS[product].image_bytes)
    assert found == Found(header(product, 7), len(data) - PRODUCTS[product].image_bytes, len(data))


def test_a_header_may_hold_single_newlines_of_any_kind():
    image = bytes(IMAGE)
    for text in (b'{\n"a":\r\n1\n}', b'{"a":1}', b'{ \t"a" : 1 }'):
        assert next_frame(text + b"\n\n*" + image, 0, IMAGE).header == {"a": 1}


def test_a_frame_with_bytes_missing_is_damaged_and_the_next_one_is_found():
    good, cut = raw("ph256", 1), raw("ph256", 2)[:-100]
    found, damaged, _ = walk(cut + good + good, PRODUCTS["ph256"].image_bytes)
    assert [h["pkt_num"] for h, _ in found] == [1, 1]
    assert damaged == len(cut)


@pytest.mark.parametrize(
    "text",
    [
        b"{no json}",
        b'{"a": 1',
        b'["a"]'.replace(b"[", b"{", 1),
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": 1' + b"0" * 400 + b"}",
        b'{"a": ' * 30 + b"1" + b"}" * 30,
        b'{"a": ' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_a_header_that_is_no_json_or_cannot_be_sent_is_set_aside(text):
    assert parse_header(text) is None
    good = raw("ph256", 3)
    found, damaged, _ = walk(text + b"\n\n*" + bytes(512) + good, 512)
    assert [h["pkt_num"] for h, _ in found] == [3]
    assert damaged == len(text) + 3 + 512


def test_an_endless_header_is_given_up_after_its_limit():
    endless = b"{" + b"x" * (MAX_HEADER_BYTES * 2)
    result = next_frame(endless, 0, IMAGE)
    assert isinstance(result, Damaged)
    assert str(MAX_HEADER_BYTES) in result.reason
    assert result.end == len(endless) - MAX_HEADER_BYTES


def test_hostile_candidates_cost_no_quadratic_time():
    hostile = b'{"' * (MAX_HEADER_BYTES // 4) + b"\n\n*" + bytes(IMAGE)
    started = time.process_time()
    walk(hostile, IMAGE)
    assert time.process_time() - started < 5  # a thousand times what it takes; quadratic work would take minutes


@pytest.mark.parametrize(
    ("name", "product", "module", "seqno", "start"),
    [
        ("start_2024-07-25T04_34_46Z.dp_img16.bpp_2.module_1.seqno_0.pff", "img16", 1, 0, "2024-07-25T04:34:46Z"),
        ("start_2024-07-25T04:34:46Z.dp_ph256.bpp_2.module_254.seqno_12.debug_TRUNCATED.pff", "ph256", 254, 12,
         "2024-07-25T04:34:46Z"),
        ("sim.dp_img8.module_3.seqno_2.pff", "img8", 3, 2, ""),
        ("x.dp_ph1024.pff", "ph1024", None, 0, ""),
    ],
)  # fmt: skip
def test_names_of_every_known_form_are_read(name, product, module, seqno, start):
    found = parse_name(name)
    assert (found.product.name, found.module_id, found.seqno, found.start) == (product, module, seqno, start)


@pytest.mark.parametrize("name", ["hk.pff", "start_x.dp_img32.module_1.pff", ""])
def test_a_name_without_a_known_product_is_refused(name):
    with pytest.raises(PffNameError, match="dp_<product>"):
        parse_name(name)


def test_a_roll_over_sorts_after_its_predecessor():
    first = file_name("2024-07-25T04:34:46Z", PRODUCTS["img16"], 1, 0)
    second = file_name("2024-07-25T05:34:46Z", PRODUCTS["img16"], 1, 1)
    tenth = file_name("2024-07-25T05:34:46Z", PRODUCTS["img16"], 1, 10)
    assert sorted([tenth, second, first], key=lambda n: parse_name(n).order) == [first, second, tenth]


def test_a_header_of_another_form_is_written_as_json():
    for head in ({"a": 1}, {"quabo_num": 1.5, **header("ph256")}, {**header("img16"), "quabo_4": {}}):
        text = format_header(head, one_header="quabo_num" in head)
        assert json.loads(text) == head
        assert text.endswith(b"\n\n")


def test_numbers_from_the_wire_are_written_as_the_integers_they_are():
    from_wire = {key: float(value) for key, value in header("ph256", 9).items()}
    assert format_frame(from_wire, pixels("ph256", 9), one_header=True) == raw("ph256", 9)
