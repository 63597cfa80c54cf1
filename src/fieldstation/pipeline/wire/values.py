"""Plain Python values <-> the well-known protobuf messages, for callers who have no message types of their own."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2, symbol_database, wrappers_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message as ProtoMessage

from fieldstation.pipeline.errors import MessageError
from fieldstation.pipeline.wire import codec

_WRAPPERS: dict[type, type[ProtoMessage]] = {
    str: wrappers_pb2.StringValue,
    bytes: wrappers_pb2.BytesValue,
    bool: wrappers_pb2.BoolValue,
    int: wrappers_pb2.Int64Value,
    float: wrappers_pb2.DoubleValue,
}


def to_payload(value: Any) -> AnyMessage:
    """Return an Any: a protobuf message as it is, str/bytes/bool/int/float as wrapper, dict as Struct, list as
    ListValue (numbers inside become floats). MessageError for anything else."""
    if isinstance(value, ProtoMessage):
        return codec.pack(value)
    try:
        if type(value) in _WRAPPERS:
            return codec.pack(_WRAPPERS[type(value)](value=value))
        if isinstance(value, dict):
            return codec.pack(json_format.ParseDict(value, struct_pb2.Struct()))
        if isinstance(value, list | tuple):
            rows = struct_pb2.ListValue()
            rows.extend(value)
            return codec.pack(rows)
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise MessageError(problem=f"{str(value)[:80]!r} does not fit a protobuf value: {error}") from error
    raise MessageError(
        problem=f"a {type(value).__name__} has no protobuf form; give text, bytes, number, dict, list or a message"
    )


def from_payload(payload: AnyMessage) -> Any:
    """The opposite: a wrapper's value, a dict, a list; another known message as it is, an unknown one as its Any.
    None for no payload."""
    if not payload.type_url:
        return None
    try:
        message = symbol_database.Default().GetSymbol(payload.TypeName())()
    except KeyError:
        return payload
    payload.Unpack(message)
    if isinstance(message, tuple(_WRAPPERS.values())):
        return message.value  # type: ignore[attr-defined]  # every wrapper has it
    if isinstance(message, struct_pb2.Struct | struct_pb2.ListValue | struct_pb2.Value):
        return json_format.MessageToDict(message)
    return message
