"""The PFF file format: names, one frame in a buffer, writing. Pure functions on bytes; files are read elsewhere.

A frame is JSON text, two newlines, `*`, pixels. Nothing separates frames, and a file does not say what it holds:
its name does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fieldstation.stream.errors import PffNameError
from fieldstation.stream.model import PRODUCTS, Product

# Real headers have about 500 bytes. The limit is what a reader buffers before it calls the text damaged.
MAX_HEADER_BYTES: Final = 65_536
# A header nested deeper than this could not be read by protobuf clients: their parsers stop at 100 nested messages.
MAX_HEADER_DEPTH: Final = 16
_MAX_NUMBER: Final = 10**300  # larger integers do not fit into a double

_CANDIDATE = re.compile(rb'\{\s*["}]')
_PRODUCT = re.compile(r"\.dp_([a-z0-9]+)")
_MODULE = re.compile(r"module_(\d+)")
_SEQNO = re.compile(r"\.seqno_(\d+)")
_START = re.compile(r"(?:^|\.)start_([^.]+)")
_decoder = json.JSONDecoder()
_INTEGER = {int}


@dataclass(frozen=True, slots=True)
class PffName:
    """What a file name tells. `start` is the UTC time in the name with `:` restored, "" when there is none."""

    product: Product
    module_id: int | None
    seqno: int
    start: str

    @property
    def order(self) -> tuple[str, int]:
        """Files of one product and module sort by this: a roll-over has a new start, and so has a new run."""
        return (self.start, self.seqno)


def parse_name(name: str) -> PffName:
    """Read `start_<UTC>.dp_<product>.bpp_<n>.module_<id>.seqno_<n>.pff`; unknown parts are ignored."""
    found = _PRODUCT.search(name)
    product = PRODUCTS.get(found[1]) if found else None
    if product is None:
        raise PffNameError(name=name, known=", ".join(PRODUCTS))
    module, seqno = _MODULE.search(name), _SEQNO.search(name)
    return PffName(
        product=product,
        module_id=int(module[1]) if module else None,
        seqno=int(seqno[1]) if seqno else 0,
        start=file_start(name),
    )


def file_name(start: str, product: Product, module_id: int, seqno: int) -> str:
    """Return the documented name; `start` is an ISO time in UTC ending in Z, its `:` become `_` as in archives."""
    stamp = start.replace(":", "_")
    return f"start_{stamp}.dp_{product.name}.bpp_{product.bytes_per_pixel}.module_{module_id}.seqno_{seqno}.pff"


class Found(NamedTuple):
    """A complete frame: its header, and where its pixels start and end in the buffer."""

    header: dict[str, Any]
    image_at: int
    end: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes that are no frame, up to `end` (where one may start), and what is wrong with them."""

    end: int
    reason: str


def parse_header(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object, or None when the text is none that could be sent to clients."""
    try:
        letters = text.decode()
        header, end = _decoder.raw_decode(letters)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or letters[end:].strip(" \t\r\n"):
        return None
    # JSON can spell half of a surrogate pair, which UTF-8 cannot hold; but only with an escape.
    escaped = b"\\u" in text
    return header if (not escaped and _is_plain(header)) or _sendable(header, 1, escaped) else None


def _is_plain(header: dict[str, Any]) -> bool:
    # Every real header: integers, at most one level down. Found out without a look at each by itself.
    numbers: list[Any] = []
    for value in header.values():
        if type(value) is dict:
            numbers += value.values()
        else:
            numbers.append(value)
    return _INTEGER.issuperset(map(type, numbers)) and bool(numbers) and max(numbers) < _MAX_NUMBER > -min(numbers)


def _sendable(value: Any, level: int, check_text: bool) -> bool:
    """Tell whether a protobuf Struct can hold it: doubles, valid text, not too deep."""
    if level > MAX_HEADER_DEPTH:
        return False
    for item in value.values() if isinstance(value, dict) else value:
        kind = type(item)
        if kind is int:
            if not -_MAX_NUMBER < item < _MAX_NUMBER:
                return False
        elif kind is dict:
            if not _sendable(item, level + 1, check_text):
                return False
        elif (kind is list and not _sendable(item, level + 1, check_text)) or (
            kind is str and check_text and not _is_text(item)
        ):
            return False
    return not check_text or isinstance(value, list) or all(map(_is_text, value))


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def next_frame(data: bytes, at: int, image_bytes: int, gap: int = 0) -> Found | Damaged | None:
    """Look at the frame that should start at `data[at]`; None means that more bytes are needed to tell.

    `gap` is how many bytes stand between two frames (the module id, on the ingest socket).
    """
    if at >= len(data):
        return None
    if data[at] != 0x7B:
        return _resynchronise(data, at, "it does not start with {")
    end = data.find(b"\n\n", at, at + MAX_HEADER_BYTES)
    if end < 0:
        if len(data) - at < MAX_HEADER_BYTES:
            return None
        return _resynchronise(data, at, f"its header has no end within {MAX_HEADER_BYTES} bytes")
    image_at = end + 3
    if len(data) < image_at:
        return None
    if data[end + 2] != 0x2A:
        return _resynchronise(data, at, "no * stands between header and pixels")
    header = parse_header(data[at:end])
    if header is None:
        return _resynchronise(data, at, "its header is no JSON object")
    stop = image_at + image_bytes
    if len(data) < stop:
        return None
    if len(data) > stop + gap and data[stop + gap] != 0x7B:
        # Something else follows. If a frame begins inside these pixels, bytes of this one are missing.
        inside = _find_start(data, image_at, stop)
        if inside is not None:
            return Damaged(inside, "its pixels are cut short")
    return Found(header, image_at, stop)


def _resynchronise(data: bytes, at: int, reason: str) -> Damaged | None:
    start = _find_start(data, at + 1, len(data))
    if start is not None:
        return Damaged(start, reason)
    # No frame in sight: let go of what cannot be the beginning of one any more, wait with the rest.
    surplus = len(data) - at - MAX_HEADER_BYTES
    return Damaged(at + surplus, reason) if surplus > 0 else None


def _find_start(data: bytes, begin: int, stop: int) -> int | None:
    """Return the first position in [begin, stop) where a frame with a valid header starts, or None."""
    end, text, text_at = -1, "", 0
    for candidate in _CANDIDATE.finditer(data, begin):
        at = candidate.start()
        if at >= stop:
            return None
        if at > end:
            end = data.find(b"\n\n", at)
            if end < 0:
                return None
            # Decoded once for all candidates before this end: quadratic work is what hostile garbage would ask for.
            text_at = max(at, end - MAX_HEADER_BYTES)
            text = data[text_at:end].decode("latin-1")
        if data[end + 2 : end + 3] != b"*" or at < text_at:
            continue
        try:
            _, text_end = _decoder.raw_decode(text, at - text_at)
        except (ValueError, RecursionError):
            continue
        if not text[text_end:].strip() and parse_header(data[at:end]) is not None:
            return at
    return None


def format_header(header: Mapping[str, Any], one_header: bool) -> bytes:
    """Write a header as the acquisition software does: fixed-width fields, so that all frames have one size.

    A header with other fields is written as plain JSON.
    """
    try:
        if one_header:
            return b'{ "quabo_num": %d, %s}\n\n' % (header["quabo_num"], _fields(header, 6))
        if len(header) != 4:
            raise KeyError
        lines = b", \n".join(
            b'   "quabo_%d": { %s}' % (number, _fields(header[f"quabo_{number}"], 5)) for number in range(4)
        )
        return b"{\n" + lines + b"\n}\n\n"
    except (KeyError, TypeError):
        return json.dumps(header).encode() + b"\n\n"


def _fields(quabo: Mapping[str, Any], count: int) -> bytes:
    if len(quabo) != count:
        raise KeyError
    if any(value != int(value) for value in quabo.values()):
        raise KeyError
    return b'"pkt_num": %10d, "pkt_tai": %4d, "pkt_nsec": %9d, "tv_sec": %10d, "tv_usec": %6d' % (
        quabo["pkt_num"],
        quabo["pkt_tai"],
        quabo["pkt_nsec"],
        quabo["tv_sec"],
        quabo["tv_usec"],
    )


def format_frame(header: Mapping[str, Any], pixels: bytes, one_header: bool) -> bytes:
    """Return the bytes of one frame."""
    return format_header(header, one_header) + b"*" + pixels


def file_start(name: str) -> str:
    """Return the start time in a file name with its `:` restored, "" when it has none."""
    found = _START.search(name)
    return found[1].replace("_", ":") if found else ""
