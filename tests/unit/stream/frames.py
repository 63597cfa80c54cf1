"""Frames for tests: made here, in the documented format."""

import numpy as np

from fieldstation.stream.model import PRODUCTS, Frame
from fieldstation.stream.pff import format_frame


def packet(number, seconds=1721882092, nanos=779007488):
    return {
        "pkt_num": number % 65536,
        "pkt_tai": (seconds + 37) % 1024,
        "pkt_nsec": nanos,
        "tv_sec": seconds,
        "tv_usec": nanos // 1000,
    }


def header(product, number=0):
    if PRODUCTS[product].one_header:
        return {"quabo_num": number % 4, **packet(number)}
    return {f"quabo_{quabo}": packet(number + quabo) for quabo in range(4)}


def pixels(product, number=0):
    kind = PRODUCTS[product]
    limits = np.iinfo(kind.dtype)
    rng = np.random.default_rng(number)
    return rng.integers(limits.min, limits.max, kind.shape, endpoint=True).astype(kind.dtype).tobytes()


def raw(product, number=0):
    return format_frame(header(product, number), pixels(product, number), PRODUCTS[product].one_header)


def frame(product, number=0, module_id=1, file="f.pff"):
    kind = PRODUCTS[product]
    return Frame(
        kind.type, module_id, product, kind.shape, kind.bytes_per_pixel, header(product, number),
        pixels(product, number), file, number,
    )  # fmt: skip


def name(product, module_id=1, seqno=0, start="2024-07-25T04:34:46Z"):
    kind = PRODUCTS[product]
    stamp = start.replace(":", "_")
    return f"start_{stamp}.dp_{product}.bpp_{kind.bytes_per_pixel}.module_{module_id}.seqno_{seqno}.pff"
