"""Frames, products and what a client asked for. Products and header fields are those of the PANOSETI file format."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ImageType(enum.IntEnum):
    """The data product class of a frame; numbers as on the wire."""

    UNDEFINED = 0
    PULSE_HEIGHT = 1
    MOVIE = 2


@dataclass(frozen=True, slots=True)
class Product:
    """A kind of frame that the acquisition software writes. `one_header`: one flat header instead of four quabos."""

    name: str
    type: ImageType
    shape: tuple[int, int]
    bytes_per_pixel: int
    one_header: bool

    @property
    def image_bytes(self) -> int:
        """Bytes of the pixels of one frame."""
        return self.shape[0] * self.shape[1] * self.bytes_per_pixel

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian NumPy type of a pixel on disk; pulse heights are signed, since a baseline was subtracted."""
        return pixel_dtype(self.type, self.bytes_per_pixel)


def pixel_dtype(image_type: ImageType, bytes_per_pixel: int) -> np.dtype[Any]:
    """Return the pixel type of a class of image; ValueError for pixels of other than 1 or 2 bytes."""
    if bytes_per_pixel == 1:
        return np.dtype("u1")
    if bytes_per_pixel == 2:
        return np.dtype("<i2" if image_type is ImageType.PULSE_HEIGHT else "<u2")
    raise ValueError(f"unsupported bytes_per_pixel: {bytes_per_pixel}")


PRODUCTS: Mapping[str, Product] = {
    product.name: product
    for product in (
        Product("img8", ImageType.MOVIE, (32, 32), 1, one_header=False),
        Product("img16", ImageType.MOVIE, (32, 32), 2, one_header=False),
        Product("ph256", ImageType.PULSE_HEIGHT, (16, 16), 2, one_header=True),
        Product("ph1024", ImageType.PULSE_HEIGHT, (32, 32), 2, one_header=False),
    )
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One image with its header. `pixels` are the bytes as on disk: row-major, little-endian.

    `product` is "" for an uploaded image that fits none of the known products; `number` counts from 0 within `file`.
    """

    type: ImageType
    module_id: int
    product: str
    shape: tuple[int, int]
    bytes_per_pixel: int
    header: Mapping[str, Any]
    pixels: bytes
    file: str
    number: int

    @property
    def image(self) -> NDArray[Any]:
        """The pixels as a read-only array of `shape`, without a copy."""
        return np.frombuffer(self.pixels, pixel_dtype(self.type, self.bytes_per_pixel)).reshape(self.shape)

    @property
    def quabo(self) -> int | None:
        """Which quarter of the camera a one-header frame comes from, None for a whole camera."""
        value = self.header.get("quabo_num")
        return int(value) if isinstance(value, int | float) else None

    @property
    def time(self) -> float:
        """Unix seconds at which the acquisition computer got the packet, 0.0 when the header has none."""
        return header_time(self.header)


def header_time(header: Mapping[str, Any]) -> float:
    """Return tv_sec + tv_usec of a header, of its first quabo that is not all zero; 0.0 without one."""
    for part in (header, *header.values()):
        if isinstance(part, Mapping) and part.get("tv_sec"):
            return float(part["tv_sec"]) + float(part.get("tv_usec", 0)) / 1e6
    return 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked for. `modules` empty means all; `interval_s` is the least time between two bursts."""

    movie: bool
    pulse_height: bool
    modules: frozenset[int]
    interval_s: float

    def matches(self, image_type: ImageType, module_id: int) -> bool:
        """True when a frame of this class and module is for this client. UNDEFINED counts as movie, as documented."""
        of_class = self.pulse_height if image_type is ImageType.PULSE_HEIGHT else self.movie
        return of_class and (not self.modules or module_id in self.modules)


@dataclass(frozen=True, slots=True)
class HpIo:
    """One InitHpIo request: what to watch, how often, and whether running streams may be ended for it."""

    data_dir: str
    update_interval_s: float
    force: bool = False
    simulate: bool = False
    modules: frozenset[int] = frozenset()
