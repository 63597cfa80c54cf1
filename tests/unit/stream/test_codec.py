import pytest
from google.protobuf import struct_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldstation.stream.errors import FrameFormatError
from fieldstation.stream.model import PRODUCTS, Frame, ImageType
from fieldstation.stream.wire.codec import (
    Encoder,
    decode_image,
    encode_header,
    encode_pixels,
    field,
    message_field,
    struct_to_dict,
)
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.testing.frames import frame

encoder = Encoder("host")
# No judgement on speed: a machine may be slow, and how slow is none of these tests' affair.
bounded = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
headers = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)


@pytest.mark.parametrize("product", PRODUCTS)
def test_an_encoded_frame_is_what_protobuf_itself_would_make(product):
    original = frame(product, 5, module_id=3)
    data = encoder.response(original, 1_700_000_000_000_000_123)
    message = pb.StreamImagesResponse.FromString(data)
    assert message.name == "host"
    assert (message.timestamp.seconds, message.timestamp.nanos) == (1_700_000_000, 123)
    assert decode_image(message.pano_image) == original
    expected = pb.PanoImage(
        type=int(original.type),
        image_array=original.image.view("u1" if original.bytes_per_pixel == 1 else "<u2").ravel().tolist(),
        shape=original.shape,
        bytes_per_pixel=original.bytes_per_pixel,
        file=original.file,
        frame_number=5,
        module_id=3,
    )
    expected.header.update(original.header)
    assert message.pano_image == expected
    # No fields with default values; and small pixels take two bytes, never three.
    small = int((original.image.view("u1" if original.bytes_per_pixel == 1 else "<u2") < 128).sum())
    assert 0 <= len(data) - len(message.SerializeToString()) <= small + 2


@bounded
@given(st.lists(st.integers(0, 65535), max_size=50) | st.lists(st.integers(0, 16383), max_size=50))
def test_any_pixels_become_the_packed_numbers_of_protobuf(values):
    data = b"".join(value.to_bytes(2, "little") for value in values)
    assert list(pb.PanoImage.FromString(field(3, encode_pixels(data, 2))).image_array) == values
    assert len(encode_pixels(data, 2)) <= 3 * len(values)


@bounded
@given(
    st.dictionaries(
        st.text(), st.one_of(st.integers(-(2**53), 2**53), st.dictionaries(st.text(), st.floats(allow_nan=False)))
    )
)
def test_any_header_of_numbers_becomes_its_struct(header):
    message = struct_pb2.Struct.FromString(encode_header(header))
    assert struct_to_dict(message) == header


@bounded
@given(headers)
def test_any_other_header_becomes_its_struct(header):
    assert struct_to_dict(struct_pb2.Struct.FromString(encode_header(header))) == header


def test_what_no_struct_can_hold_is_an_error_of_ours():
    for header in ({"a": 10**400}, {"a": "\ud800"}, {"a": object()}):
        with pytest.raises(FrameFormatError):
            encode_header(header)


def test_a_note_may_follow_an_encoded_response():
    data = encoder.response(frame("ph256"), 1) + message_field("3 frames dropped")
    message = pb.StreamImagesResponse.FromString(data)
    assert message.message == "3 frames dropped"
    assert message.pano_image.module_id == 1


def test_a_frame_of_zeros_has_no_default_fields_and_comes_back():
    zero = Frame(ImageType.UNDEFINED, 0, "", (16, 16), 1, {}, bytes(256), "", 0)
    assert decode_image(pb.StreamImagesResponse.FromString(encoder.response(zero, 1)).pano_image) == zero


@pytest.mark.parametrize(
    "image",
    [
        pb.PanoImage(type=2, shape=[32, 32], bytes_per_pixel=2, image_array=[1] * 1023),
        pb.PanoImage(type=2, shape=[32, 32], bytes_per_pixel=4, image_array=[1] * 1024),
    ],
)
def test_sizes_that_do_not_agree_are_refused(image):
    with pytest.raises(ValueError):
        decode_image(image)


def test_a_file_name_that_is_no_utf8_does_not_end_the_stream():
    message = pb.StreamImagesResponse.FromString(encoder.response(frame("img8", file="run_\udcff.pff"), 1))
    assert message.pano_image.file == "run_?.pff"
