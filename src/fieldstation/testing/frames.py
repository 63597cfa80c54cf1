"""Camera frames for tests: made here, in the documented format, a different one for each number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fieldstation.stream.model import PRODUCTS, Frame
from fieldstation.stream.pff import format_frame


def packet(number: int, seconds: int = 1721882092, nanos: int = 779007488) -> dict[str, int]:
    """Return the header fields of one quabo; the time is that of the document's example."""
    return {
        "pkt_num": number % 65536,
        "pkt_tai": (seconds + 37) % 1024,
        "pkt_nsec": nanos,
        "tv_sec": seconds,
        "tv_usec": nanos // 1000,
    }


def header(product: str, number: int = 0) -> dict[str, Any]:
    """Return the header of frame `number`: quabo 0 (or the only one) has it as pkt_num."""
    if PRODUCTS[product].one_header:
        return {"quabo_num": number % 4, **packet(number)}
    return {f"quabo_{quabo}": packet(number + quabo) for quabo in range(4)}


def pixels(product: str, number: int = 0) -> bytes:
    """Return random pixels over the whole range of their type, the same for the same number."""
    kind = PRODUCTS[product]
    limits = np.iinfo(kind.dtype)
    rng = np.random.default_rng(number)
    return rng.integers(limits.min, limits.max, kind.shape, endpoint=True).astype(kind.dtype).tobytes()


def raw(product: str, number: int = 0) -> bytes:
    """Return the bytes of frame `number` in a PFF file."""
    return format_frame(header(product, number), pixels(product, number), PRODUCTS[product].one_header)


def dim(product: str, number: int = 0) -> bytes:
    """Return `raw` with pixels of a dark sky: all below 16,384, what a varint of two bytes holds."""
    kind = PRODUCTS[product]
    values = np.abs(np.frombuffer(pixels(product, number), kind.dtype) >> 2)
    return format_frame(header(product, number), values.tobytes(), kind.one_header)


def frame(product: str, number: int = 0, module_id: int = 1, file: str = "f.pff") -> Frame:
    """Return the typed frame."""
    kind = PRODUCTS[product]
    return Frame(
        kind.type,
        module_id,
        product,
        kind.shape,
        kind.bytes_per_pixel,
        header(product, number),
        pixels(product, number),
        file,
        number,
    )


def name(product: str, module_id: int = 1, seqno: int = 0, start: str = "2024-07-25T04:34:46Z") -> str:
    """Return a documented file name."""
    stamp = start.replace(":", "_")
    bpp = PRODUCTS[product].bytes_per_pixel
    return f"start_{stamp}.dp_{product}.bpp_{bpp}.module_{module_id}.seqno_{seqno}.pff"


def recorded() -> Path | None:
    """Return the folder of real observing data: FIELDSTATION_PANOSETI, or `shared/data/panoseti` above the tree."""
    named = os.environ.get("FIELDSTATION_PANOSETI")
    folders = [Path(named)] if named else [above / "shared/data/panoseti" for above in Path.cwd().parents]
    return next((folder for folder in folders if folder.is_dir()), None)
