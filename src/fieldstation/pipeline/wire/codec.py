"""KaiNatsMessage <-> Message, and the size rule: as is, else gzip, else a clear error."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from fieldstation.pipeline.config import MAX_INFLATED_BYTES
from fieldstation.pipeline.errors import (
    InflatedTooLargeError,
    MessageTooLargeError,
    UndecodableMessageError,
    UnknownPayloadError,
    WrongReturnError,
)
from fieldstation.pipeline.model import Message
from fieldstation.pipeline.wire.pb.kai_nats_msg_pb2 import KaiNatsMessage

GZIP = b"\x1f\x8b"  # no protobuf begins so: it would be field 3 with wire type 7, which does not exist


def encode(message: Message) -> bytes:
    """Return the serialized KaiNatsMessage; absent fields are not written."""
    wire = KaiNatsMessage(
        request_id=message.request_id,
        error=message.error,
        from_node=message.from_node,
        message_type=message.message_type,  # type: ignore[arg-type]  # the enum is open: any number is valid
    )
    if message.payload is not None:
        wire.payload.CopyFrom(message.payload)
    return wire.SerializeToString()


def decode(body: bytes, subject: str, max_inflated: int = MAX_INFLATED_BYTES) -> Message:
    """Read a message body, compressed or not; `max_inflated` bounds what a compressed one may unpack to."""
    if body.startswith(GZIP):
        body = _inflate(body, subject, max_inflated)
    try:
        wire = KaiNatsMessage.FromString(body)
    except DecodeError as error:
        raise UndecodableMessageError(subject=subject, detail=error) from error
    return Message(wire.request_id, wire.payload, wire.error, wire.from_node, wire.message_type)


def fit(body: bytes, limit: int, subject: str) -> bytes:
    """Return what to send: `body` when it fits `limit`, else its gzip, else raise MessageTooLargeError."""
    if len(body) <= limit:
        return body
    packed = gzip.compress(body, 9, mtime=0)
    if len(packed) <= limit:
        return packed
    raise MessageTooLargeError(subject=subject, size=len(body), packed=len(packed), limit=limit)


def pack(value: Any) -> AnyMessage:
    """Return `value`, a protobuf message or already an Any, as an Any."""
    if isinstance(value, AnyMessage):
        return value
    if not isinstance(value, ProtoMessage):
        raise WrongReturnError(found=type(value).__name__)
    packed = AnyMessage()
    packed.Pack(value)
    return packed


def unpack(payload: AnyMessage, wanted: type[ProtoMessage]) -> ProtoMessage:
    """Return the message inside `payload`; UnknownPayloadError when it is of another type."""
    message = wanted()
    try:
        if payload.Unpack(message):
            return message
    except DecodeError as error:
        raise UnknownPayloadError(
            f"The payload says it is a {payload.TypeName()}, and its bytes are not: {error}."
        ) from error
    raise UnknownPayloadError(found=payload.TypeName() or "message without payload", wanted=wanted.DESCRIPTOR.full_name)


def is_proto(cls: Any) -> bool:
    """True for a generated message class (other than Any), as found in a handler's annotation."""
    return isinstance(cls, type) and issubclass(cls, ProtoMessage) and cls is not AnyMessage


def _inflate(body: bytes, subject: str, limit: int) -> bytes:
    # Piece by piece with a bound, so that a small bomb does not fill the memory. Gzip members may follow each other.
    out = bytearray()
    while body:
        inflater = zlib.decompressobj(wbits=31)
        try:
            out += inflater.decompress(body, limit - len(out) + 1)
        except zlib.error as error:
            raise UndecodableMessageError(subject=subject, detail=f"broken gzip: {error}") from error
        if len(out) > limit:
            raise InflatedTooLargeError(limit=limit)
        if not inflater.eof:
            raise UndecodableMessageError(subject=subject, detail="truncated gzip")
        body = inflater.unused_data
    return bytes(out)


def from_text(kind: str, text: str) -> ProtoMessage:
    """Make a message of type `kind` from JSON, or from plain text for the string wrapper."""
    import google.protobuf.empty_pb2
    import google.protobuf.struct_pb2
    import google.protobuf.timestamp_pb2
    import google.protobuf.wrappers_pb2  # noqa: F401 - registers the well-known types
    from google.protobuf import json_format, symbol_database

    try:
        message: ProtoMessage = symbol_database.Default().GetSymbol(kind)()
    except KeyError as error:
        raise UnknownPayloadError(f"There is no message type {kind} here.") from error
    if kind == "google.protobuf.StringValue" and not text.startswith('"'):
        text = json.dumps(text)
    try:
        return json_format.Parse(text, message)
    except json_format.ParseError as error:
        raise UnknownPayloadError(f"The text is no {kind}: {error}") from error


def to_text(payload: AnyMessage) -> str:
    """Show a payload: JSON for a type known here, else its type and size."""
    from google.protobuf import json_format

    try:
        return json.dumps(json_format.MessageToDict(payload))
    except (TypeError, json_format.Error):
        return f"{payload.TypeName() or 'no payload'}, {len(payload.value)} bytes"
