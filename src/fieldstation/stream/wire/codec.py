"""Frames to the bytes of a StreamImagesResponse and back. Pure functions; field numbers are those of daq_data.proto.

Encoding builds the bytes directly: the general way (dict to Struct, 1024 integers into a repeated field) takes
about ten times as long, and every client gets these same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseError

from fieldstation.stream.errors import FrameFormatError
from fieldstation.stream.model import Frame, ImageType, pixel_dtype
from fieldstation.stream.series import Series
from fieldstation.stream.wire.pb import daq_data_pb2 as pb


def varint(value: int) -> bytes:
    """Return the protobuf varint of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    """Return a length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


# All varints of 16-bit pixels: up to three bytes each, and which of the four bytes of an entry are used.
_VALUES = np.arange(65536)
_VARINTS = np.zeros((65536, 4), np.uint8)
_VARINTS[:, 0] = (_VALUES & 0x7F) | np.where(_VALUES > 0x7F, 0x80, 0)
_VARINTS[:, 1] = ((_VALUES >> 7) & 0x7F) | np.where(_VALUES > 0x3FFF, 0x80, 0)
_VARINTS[:, 2] = _VALUES >> 14
_USED = np.zeros((65536, 4), np.uint8)
_USED[:, 0] = 1
_USED[:, 1] = _VALUES > 0x7F
_USED[:, 2] = _VALUES > 0x3FFF
_VARINTS32 = _VARINTS.view(np.uint32).ravel()
_USED32 = _USED.view(np.uint32).ravel()
_TWO_BYTES = 16384  # what a varint of two bytes can hold
_PAIRS = (_VALUES[:_TWO_BYTES] & 0x7F | 0x80 | _VALUES[:_TWO_BYTES] >> 7 << 8).astype("<u2")
del _VALUES


def encode_pixels(pixels: bytes, bytes_per_pixel: int) -> bytes:
    """Return the packed varints of little-endian unsigned pixels of 1 or 2 bytes.

    A frame without pixels of 16384 and above gets two bytes for each, also for those below 128: readers must take a
    varint with a leading zero, and leaving none out is three times as fast.
    """
    values = np.frombuffer(pixels, "<u2" if bytes_per_pixel == 2 else np.uint8)
    if len(values) and values.max() < _TWO_BYTES:
        return _PAIRS.take(values).tobytes()
    used = _USED32.take(values).view(np.bool_)
    return np.compress(used, _VARINTS32.take(values).view(np.uint8)).tobytes()


class _Layout:
    """The Struct bytes of headers with one set of keys: all but the numbers is constant."""

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.parts: list[bytes] = [b""]
        self._entries(header, b"")
        arguments = " ".join(f"{len(part)}s d" for part in self.parts[:-1])
        self._struct = struct.Struct(f"< {arguments} {len(self.parts[-1])}s".replace(" d", "d"))

    def _entries(self, header: Mapping[str, Any], _: bytes) -> None:
        for key, value in header.items():
            name = field(1, key.encode())
            if isinstance(value, Mapping):
                size = self._size(value)
                inner = varint(5 << 3 | 2) + varint(size)
                length = len(inner) + size
                self._entry(name, inner, length)
                self._entries(value, b"")
            else:
                self._entry(name, b"\x11", 9)
                self.parts.append(b"")

    def _entry(self, name: bytes, value_head: bytes, value_length: int) -> None:
        value = b"\x12" + varint(value_length)
        self.parts[-1] += b"\x0a" + varint(len(name) + len(value) + value_length) + name + value + value_head

    def _size(self, header: Mapping[str, Any]) -> int:
        total = 0
        for key in header:
            entry = len(field(1, key.encode())) + 2 + 9
            total += 1 + len(varint(entry)) + entry
        return total

    @property
    def places(self) -> list[int]:
        """Where the doubles are."""
        return [at + 8 * index for index, at in enumerate(accumulate(map(len, self.parts[:-1])))]

    def fill(self, numbers: list[float]) -> bytes:
        arguments: list[Any] = [None] * (2 * len(numbers) + 1)
        arguments[::2] = self.parts
        arguments[1::2] = numbers
        return self._struct.pack(*arguments)


_layouts: dict[tuple[object, ...], _Layout] = {}
_MAX_LAYOUTS = 64  # headers come from files; hostile ones shall not fill the memory
_NUMBERS = {int, float}


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Return the bytes of the Struct; numbers become doubles. FrameFormatError for what a Struct cannot hold."""
    try:
        layout, numbers = _layout(header)
        return layout.fill(numbers) if layout is not None else _encode_any(header)
    except (OverflowError, struct.error, UnicodeEncodeError) as error:
        raise FrameFormatError(where="the header", problem=error) from error


def _layout(header: Mapping[str, Any]) -> tuple[_Layout | None, list[float]]:
    """Return the layout of a header and its numbers; no layout when it holds anything else."""
    numbers: list[Any] = []
    signature: list[object] = []
    for key, value in header.items():
        if type(value) is dict:
            signature.append((key, *value))
            numbers += value.values()
        else:
            signature.append(key)
            numbers.append(value)
    # bool is no number in JSON, and a nested object or text needs the general way.
    if not _NUMBERS.issuperset(map(type, numbers)):
        return None, numbers
    shape = tuple(signature)
    layout = _layouts.get(shape)
    if layout is None:
        layout = _Layout(header)
        if len(_layouts) < _MAX_LAYOUTS:
            _layouts[shape] = layout
    return layout, numbers


def _encode_any(header: Mapping[str, Any]) -> bytes:
    message = struct_pb2.Struct()
    try:
        message.update(header)
        return message.SerializeToString()
    except (ValueError, TypeError, OverflowError, ParseError, UnicodeEncodeError) as error:
        raise FrameFormatError(where="the header", problem=error) from error


class Encoder:
    """Encodes responses in the name of one server."""

    def __init__(self, name: str) -> None:
        self._name = field(1, name.encode())

    def response(self, frame: Frame, received_ns: int) -> bytes:
        """Return the bytes of a StreamImagesResponse that holds `frame`."""
        return self.wrap(encode_image(frame), received_ns)

    def series(self, series: Series, received_ns: int) -> list[bytes]:
        """Return the responses of all frames: that of the first one, with the numbers and pixels of each put in."""
        first = series.first
        layout = _layout(first.header)[0]
        pixels = series.pixels.view("<u2" if first.bytes_per_pixel == 2 else np.uint8)
        wide = pixels.max(axis=1) >= _TWO_BYTES
        if layout is None or wide.all():
            return [self.response(frame, received_ns) for frame in series]
        # The frame number comes last and always has five bytes.
        image = encode_image(replace(first, pixels=bytes(len(first.pixels)), number=0)) + b"\x38" + bytes(5)
        response = self.wrap(image, received_ns)
        header = encode_header(first.header)
        header_at = response.index(header, len(response) - len(image))
        pixels_at = header_at + len(header) + 1 + len(varint(2 * pixels.shape[1]))
        rows = np.tile(np.frombuffer(response, np.uint8), (len(series), 1))
        for place, column in zip(layout.places, series.numbers.T, strict=True):
            at = header_at + place
            rows[:, at : at + 8] = column.astype("<f8").reshape(-1, 1).view(np.uint8)
        rows[:, pixels_at : pixels_at + 2 * pixels.shape[1]] = _PAIRS.take(pixels, mode="clip").view(np.uint8)
        numbers = first.number + np.arange(len(series)).reshape(-1, 1)
        rows[:, -5:] = numbers >> (0, 7, 14, 21, 28) & 0x7F | (0x80, 0x80, 0x80, 0x80, 0)
        return [self.response(series[i], received_ns) if wide[i] else rows[i].tobytes() for i in range(len(series))]

    def wrap(self, image: bytes, received_ns: int) -> bytes:
        """Return the response around an encoded PanoImage."""
        seconds, nanos = divmod(received_ns, 1_000_000_000)
        stamp = b"\x08" + varint(seconds) + b"\x10" + varint(nanos)
        return b"".join((self._name, b"\x12", varint(len(stamp)), stamp, b"\x22", varint(len(image)), image))


def message_field(text: str) -> bytes:
    """Return `message` as bytes that may follow an encoded response: protobuf fields may be concatenated."""
    return field(3, text.encode())


def encode_image(frame: Frame) -> bytes:
    """Return the bytes of a PanoImage."""
    header = encode_header(frame.header)
    pixels = encode_pixels(frame.pixels, frame.bytes_per_pixel)
    rows, columns = frame.shape
    file = frame.file.encode(errors="replace")
    parts = [b"\x12", varint(len(header)), header, b"\x1a", varint(len(pixels)), pixels]
    if frame.type:
        parts.insert(0, b"\x08" + varint(frame.type))
    parts += [field(4, varint(rows) + varint(columns)), b"\x28", varint(frame.bytes_per_pixel)]
    if file:
        parts += [b"\x32", varint(len(file)), file]
    if frame.number:
        parts += [b"\x38", varint(frame.number)]
    if frame.module_id:
        parts += [b"\x40", varint(frame.module_id)]
    return b"".join(parts)


def struct_to_dict(message: struct_pb2.Struct) -> dict[str, Any]:
    """Return the Struct as plain Python; numbers stay floats, as the documents show them."""
    return {key: _plain(value) for key, value in message.fields.items()}


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return value.number_value
    if kind == "struct_value":
        return struct_to_dict(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def image_array(message: pb.PanoImage) -> np.ndarray[Any, Any]:
    """Return the pixels as an array of the message's shape; ValueError when count, size and shape do not agree."""
    dtype = pixel_dtype(ImageType(message.type), message.bytes_per_pixel)
    # The bit pattern travels: the cast to a signed pixel wraps on purpose.
    return np.array(message.image_array, np.uint32).astype(dtype).reshape(tuple(message.shape))


def product_name(image_type: ImageType, shape: tuple[int, ...], bytes_per_pixel: int) -> str:
    """Return the data product of an image, "" when it is none of the known ones."""
    from fieldstation.stream.model import PRODUCTS

    for product in PRODUCTS.values():
        if (product.type, product.shape, product.bytes_per_pixel) == (image_type, shape, bytes_per_pixel):
            return product.name
    return ""


def decode_image(message: pb.PanoImage) -> Frame:
    """Return the typed frame of a PanoImage; ValueError for sizes that do not agree."""
    array = image_array(message)
    shape = (array.shape[0], array.shape[1])
    image_type = ImageType(message.type)
    return Frame(
        image_type,
        message.module_id,
        product_name(image_type, shape, message.bytes_per_pixel),
        shape,
        message.bytes_per_pixel,
        struct_to_dict(message.header),
        array.tobytes(),
        message.file,
        message.frame_number,
    )
