"""What one frame costs to encode and to parse, beside protobuf's own way of doing it."""

from __future__ import annotations

import timeit

import numpy as np
from rows import Row

from fieldstation.stream.model import Frame, Product
from fieldstation.stream.pff import next_frame
from fieldstation.stream.wire.codec import Encoder
from fieldstation.stream.wire.parse import parse_pano_image
from fieldstation.stream.wire.pb import daq_data_pb2 as pb


def microseconds(call, number: int = 2000) -> float:
    return min(timeit.repeat(call, number=number, repeat=5)) / number * 1e6


def codec_rows(data: bytes, product: Product) -> list[Row]:
    encoder = Encoder("host")

    def encode() -> bytes:
        found = next_frame(data, 0, product.image_bytes)
        frame = Frame(product.type, 1, "img16", (32, 32), 2, found.header, data[found.image_at : found.end], "f", 1)
        return encoder.response(frame, 1)

    message = pb.StreamImagesResponse.FromString(encode())
    raw = encode()
    header = message.pano_image.header
    pixels = np.frombuffer(data[-2048:], "<u2").tolist()

    def by_hand() -> bytes:
        image = pb.PanoImage(image_array=pixels)
        image.header.CopyFrom(header)
        return pb.StreamImagesResponse(pano_image=image).SerializeToString()

    ours, limit = microseconds(encode), microseconds(by_hand)
    rows = [
        Row(
            "encode a 32x32 frame, JSON header included",
            f"{ours:.0f} µs",
            f"{limit:.0f} µs, protobuf's own way without JSON",
            ours / limit,
            "<= 45 µs",
        )
    ]
    ours = microseconds(lambda: parse_pano_image(pb.StreamImagesResponse.FromString(raw).pano_image))
    limit = microseconds(lambda: pb.StreamImagesResponse.FromString(raw))
    rows.append(
        Row(
            "client: bytes to the documented dictionary",
            f"{ours:.0f} µs",
            f"{limit:.0f} µs, protobuf decode alone",
            ours / limit,
            "<= 60 µs",
        )
    )
    return rows
