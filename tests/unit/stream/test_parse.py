from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from fieldstation.stream.wire.codec import encode_image
from fieldstation.stream.wire.parse import (
    format_stream_images_response,
    get_dp_name_from_props,
    parse_dp_name,
    parse_pano_image,
    white_rabbit_ns,
)
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.testing.frames import frame


def image(product, number=0):
    return pb.PanoImage.FromString(encode_image(frame(product, number)))


@pytest.mark.parametrize(
    ("product", "kind", "dtype"),
    [
        ("img8", "MOVIE", "u1"),
        ("img16", "MOVIE", "u2"),
        ("ph256", "PULSE_HEIGHT", "i2"),
        ("ph1024", "PULSE_HEIGHT", "i2"),
    ],
)
def test_the_documented_dictionary(product, kind, dtype):
    original = frame(product, 3)
    parsed = parse_pano_image(image(product, 3))
    assert list(parsed) == [
        "type", "header", "shape", "bytes_per_pixel", "image_array", "file", "frame_number", "module_id",
    ]  # fmt: skip
    assert parsed["type"] == kind
    assert parsed["shape"] == list(original.shape)
    assert parsed["image_array"].dtype == np.dtype(dtype)
    assert (parsed["image_array"] == original.image).all()
    assert (parsed["file"], parsed["frame_number"], parsed["module_id"]) == ("f.pff", 3, 1)
    times = {"wr_unix_timestamp", "pkt_unix_timestamp", "pandas_unix_timestamp"}
    assert {k: v for k, v in parsed["header"].items() if k not in times} == original.header
    assert times <= set(parsed["header"])


def test_the_times_of_the_documents_example():
    header = parse_pano_image(image("img16"))["header"]
    assert header["wr_unix_timestamp"] == Decimal("1721882092.779007488")
    assert str(header["pkt_unix_timestamp"]) == "1721882092.779007"
    assert header["pandas_unix_timestamp"] == pd.Timestamp("2024-07-25 04:34:52.779007488")


def test_the_packet_clock_is_selectable_as_the_released_code_shows_it():
    header = parse_pano_image(image("img16"), clock="packet")["header"]
    assert header["pandas_unix_timestamp"] == pd.Timestamp("2024-07-25 04:34:52.779007")


@pytest.mark.parametrize(("tai_offset", "expected"), [(0, 100), (-1, 99), (1, 101), (2, None), (500, None)])
def test_the_white_rabbit_second_is_found_from_ten_bits(tai_offset, expected):
    header = {"tv_sec": 100, "pkt_tai": (100 + 37 + tai_offset) % 1024, "pkt_nsec": 5}
    assert white_rabbit_ns(header) == (0 if expected is None else expected * 10**9 + 5)


def test_without_white_rabbit_the_other_clock_stands_in():
    bad = image("ph256")
    bad.header["pkt_tai"] = 5
    header = parse_pano_image(bad)["header"]
    assert header["wr_unix_timestamp"] == 0
    assert header["pandas_unix_timestamp"] == pd.Timestamp("2024-07-25 04:34:52.779007")


def test_what_has_no_times_or_shape_raises_as_documented():
    empty = image("ph256")
    empty.header.Clear()
    with pytest.raises(KeyError):
        parse_pano_image(empty)
    odd = image("ph256")
    odd.shape[:] = [8, 32]
    with pytest.raises(KeyError):
        parse_pano_image(odd)
    thick = image("ph256")
    thick.bytes_per_pixel = 4
    with pytest.raises(ValueError):
        parse_pano_image(thick)


def test_public_helpers():
    assert get_dp_name_from_props(2, [32, 32], 1) == "img8"
    with pytest.raises(ValueError, match="Unknown data product"):
        get_dp_name_from_props(2, [16, 16], 1)
    assert parse_dp_name("start_x.dp_ph256.bpp_2.module_1.pff") == "ph256"
    with pytest.raises(ValueError, match="Could not parse data product name"):
        parse_dp_name("nothing")
    text = format_stream_images_response(pb.StreamImagesResponse(name="n", pano_image=image("img8", 4)))
    assert "frame_number=4" in text
    assert "MOVIE" in text
