"""The documented bytes of a KaiNatsMessage, written out by hand."""

import contextlib
import gzip
import os

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import StringValue

from fieldstation.pipeline.errors import InflatedTooLargeError, MessageTooLargeError, UndecodableMessageError
from fieldstation.pipeline.model import Message, MessageType
from fieldstation.pipeline.wire import codec
from fieldstation.pipeline.wire.pb.kai_nats_msg_pb2 import DESCRIPTOR, KaiNatsMessage

URL = b"type.googleapis.com/google.protobuf.StringValue"
ANY = b"\x0a" + bytes([len(URL)]) + URL + b"\x12\x04" + b"\x0a\x02hi"
OK = b"\x0a\x03r-1" + b"\x12" + bytes([len(ANY)]) + ANY + b"\x22\x04door" + b"\x28\x01"
ERROR = b"\x0a\x03r-1" + b"\x1a\x05broke" + b"\x22\x03mix" + b"\x28\x02"


def fields(body):
    return {field.name: value for field, value in KaiNatsMessage.FromString(body).ListFields()}


def test_the_descriptor_is_the_documented_one():
    message = DESCRIPTOR.message_types_by_name["KaiNatsMessage"]
    assert DESCRIPTOR.package == ""
    assert [(f.number, f.name) for f in message.fields] == [
        (1, "request_id"),
        (2, "payload"),
        (3, "error"),
        (4, "from_node"),
        (5, "message_type"),
    ]
    assert {v.number: v.name for v in DESCRIPTOR.enum_types_by_name["MessageType"].values} == {
        0: "UNDEFINED",
        1: "OK",
        2: "ERROR",
        3: "EARLY_REPLY",
        4: "EARLY_EXIT",
    }


def test_documented_bytes_are_read():
    message = codec.decode(OK, "s", 1000)
    assert (message.request_id, message.from_node, message.message_type, message.error) == ("r-1", "door", 1, "")
    assert codec.unpack(message.payload, StringValue).value == "hi"
    message = codec.decode(ERROR, "s", 1000)
    assert (message.error, message.message_type, message.payload.type_url) == ("broke", 2, "")


def test_what_is_written_has_the_documented_fields_and_nothing_else():
    ours = codec.encode(Message("r-1", codec.pack(StringValue(value="hi")), "", "door", MessageType.OK))
    assert fields(ours) == fields(OK)
    ours = codec.encode(Message("r-1", None, "broke", "mix", MessageType.ERROR))
    assert fields(ours) == fields(ERROR)
    assert "payload" not in fields(ours)


def test_any_has_the_standard_prefix():
    assert codec.pack(StringValue()).type_url == "type.googleapis.com/google.protobuf.StringValue"
    given = AnyMessage(type_url="x/y", value=b"z")
    assert codec.pack(given) is given


@pytest.mark.parametrize("number", [0, 3, 4, 99])
def test_the_enum_is_open(number):
    body = codec.encode(Message("r", None, "", "n", number))
    assert codec.decode(body, "s", 1000).message_type == number


def test_unknown_fields_are_tolerated():
    assert codec.decode(OK + b"\x32\x03new", "s", 1000).request_id == "r-1"


def test_gzip_is_accepted_at_any_size_and_level():
    for level in (1, 9):
        assert codec.decode(gzip.compress(OK, level), "s", 1000).request_id == "r-1"
    assert codec.decode(gzip.compress(OK[:7]) + gzip.compress(OK[7:]), "s", 1000).request_id == "r-1"


def test_a_body_is_sent_as_it_is_up_to_the_limit_and_compressed_above():
    body = b"a" * 1000
    assert codec.fit(body, 1000, "s") is body
    packed = codec.fit(body, 999, "s")
    assert packed[:2] == b"\x1f\x8b"
    assert gzip.decompress(packed) == body


def test_what_does_not_fit_compressed_either_is_refused_with_both_sizes():
    with pytest.raises(MessageTooLargeError, match=r"has 5000 bytes, \d+ compressed, and the server takes 1000"):
        codec.fit(os.urandom(5000), 1000, "s")


@pytest.mark.parametrize(
    "body", [b"\xff", OK[:-1], b"\x1f", b"\x1f\x8b", gzip.compress(OK, mtime=0)[:-4], gzip.compress(b"\xff", mtime=0)]
)
def test_broken_bodies_are_one_documented_sentence(body):
    with pytest.raises(UndecodableMessageError, match="error parsing message data coming from subject s because"):
        codec.decode(body, "s", 1000)


def test_inflation_stops_at_its_bound():
    with pytest.raises(InflatedTooLargeError):
        codec.decode(gzip.compress(bytes(10_000_000)), "s", 100_000)
    exact = codec.encode(Message("r" * 500, None, "", "n"))
    assert codec.decode(gzip.compress(exact), "s", len(exact)).request_id == "r" * 500


def test_random_bytes_never_do_anything_but_raise_or_parse():
    import random

    rng = random.Random(1)
    for _ in range(2000):
        body = rng.randbytes(rng.randrange(40))
        with contextlib.suppress(UndecodableMessageError):
            codec.decode(body, "s", 1000)
