"""A PanoImage message as the documented dictionary, and the documented names around it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from fieldstation.core.plugins import require
from fieldstation.stream.model import PRODUCTS, ImageType
from fieldstation.stream.wire.codec import image_array, product_name, struct_to_dict
from fieldstation.stream.wire.pb import daq_data_pb2 as pb

# The document's example takes `pandas_unix_timestamp` from the White Rabbit clock, the released code from the
# acquisition computer's. Both are here.
Clock = Literal["white_rabbit", "packet"]

TAI_MINUS_UTC_S = 37
_TYPES = {0: "UNDEFINED", 1: "PULSE_HEIGHT", 2: "MOVIE"}


def white_rabbit_ns(header: Mapping[str, Any]) -> int:
    """Return Unix nanoseconds of the camera's own clock; 0 when it is more than 1 s off the computer's.

    The header holds only ten bits of the TAI seconds; the computer's time supplies the rest.
    """
    seconds = int(header["tv_sec"])
    difference = (seconds - int(header["pkt_tai"]) + TAI_MINUS_UTC_S) % 1024
    if difference == 0:
        base = seconds
    elif difference == 1:
        base = seconds - 1
    elif difference == 1023:
        base = seconds + 1
    else:
        return 0
    return base * 1_000_000_000 + int(header["pkt_nsec"])


def packet_ns(header: Mapping[str, Any]) -> int:
    """Return Unix nanoseconds at which the acquisition computer got the packet."""
    return int(header["tv_sec"]) * 1_000_000_000 + int(header["tv_usec"]) * 1000


_timestamp: Any = None


def _pandas_timestamp(nanoseconds: int) -> Any:
    global _timestamp
    if _timestamp is None:  # half a second and 40 MB, so only for those who parse
        _timestamp = require("pandas", extra="stream", feature="parse_pano_image").Timestamp
    return _timestamp(nanoseconds)


def _decimal(nanoseconds: int, places: int) -> Decimal:
    return Decimal(nanoseconds // 10 ** (9 - places)).scaleb(-places)


def parse_pano_image(pano_image: pb.PanoImage, clock: Clock = "white_rabbit") -> dict[str, Any]:
    """Return the documented dictionary of an image: KeyError for a header without its times or an unknown shape.

    `clock` selects what `pandas_unix_timestamp` shows: the camera's White Rabbit clock as in the document's example
    (the computer's when White Rabbit is more than 1 s off), or "packet", the computer's, as the released code does.
    """
    header = struct_to_dict(pano_image.header)
    shape = list(pano_image.shape)
    if tuple(shape) not in ((16, 16), (32, 32)):
        raise KeyError(f"no header layout is known for the shape {shape}")
    times = header if shape[0] == 16 else header["quabo_0"]
    exact, computer = white_rabbit_ns(times), packet_ns(times)
    header["wr_unix_timestamp"] = _decimal(exact, 9) if exact else 0
    header["pkt_unix_timestamp"] = _decimal(computer, 6)
    header["pandas_unix_timestamp"] = _pandas_timestamp(exact if exact and clock == "white_rabbit" else computer)
    return {
        "type": _TYPES[pano_image.type],
        "header": header,
        "shape": shape,
        "bytes_per_pixel": pano_image.bytes_per_pixel,
        "image_array": image_array(pano_image),
        "file": pano_image.file,
        "frame_number": pano_image.frame_number,
        "module_id": pano_image.module_id,
    }


def get_dp_name_from_props(image_type: int, shape: list[int] | tuple[int, ...], bytes_per_pixel: int) -> str:
    """Return the data product of an image of this type (number or ImageType), shape and pixel size."""
    name = product_name(ImageType(image_type), tuple(shape), bytes_per_pixel)
    if not name:
        raise ValueError(f"Unknown data product: type {image_type}, shape {list(shape)}, {bytes_per_pixel} bytes")
    return name


def parse_dp_name(name: str) -> str:
    """Return the data product in a file name."""
    found = re.search(r"\.dp_([a-zA-Z0-9]+)", name)
    if found is None or found[1] not in PRODUCTS:
        raise ValueError(f"Could not parse data product name from {name!r}")
    return found[1]


def format_stream_images_response(response: pb.StreamImagesResponse) -> str:
    """Return one line that tells what a response holds."""
    image = response.pano_image
    return (
        f"name={response.name!r} timestamp={response.timestamp.ToJsonString()} message={response.message!r} "
        f"type={_TYPES[image.type]} module_id={image.module_id} shape={list(image.shape)} "
        f"file={image.file!r} frame_number={image.frame_number}"
    )
