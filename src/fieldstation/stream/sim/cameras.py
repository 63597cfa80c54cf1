"""What simulated modules see: generated frames, or archived ones over and over."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fieldstation.stream.config import SimulationConfig
from fieldstation.stream.errors import StreamError
from fieldstation.stream.model import PRODUCTS, ImageType, Product
from fieldstation.stream.pff import Found, next_frame

TAI_MINUS_UTC_S = 37


class Sky:
    """Generated camera frames of one module: background, noise, a star that drifts, and flashes."""

    def __init__(self, module_id: int) -> None:
        self._rng = np.random.default_rng(module_id)
        self._number = 0
        y, x = np.mgrid[0:32, 0:32]
        self._y, self._x = y, x
        self._background = 180 + 60 * np.exp(-((x - 16.0) ** 2 + (y - 16.0) ** 2) / 300)

    def frame(self, product: Product, now_ns: int) -> tuple[dict[str, Any], bytes]:
        """Return header and pixels of the next frame of `product` at Unix time `now_ns`."""
        self._number += 1
        if product.type is ImageType.MOVIE:
            angle = self._number / 50
            star = 900 * np.exp(
                -((self._x - 16 - 9 * np.cos(angle)) ** 2 + (self._y - 16 - 9 * np.sin(angle)) ** 2) / 3
            )
            image = self._rng.poisson(self._background + star)
        else:
            image = self._rng.normal(0, 12, product.shape)
            row, column = self._rng.integers(1, product.shape[0] - 1, 2)
            image[row - 1 : row + 2, column - 1 : column + 2] += self._rng.exponential(250)
        limits = np.iinfo(product.dtype)
        pixels = np.clip(image, limits.min, limits.max).astype(product.dtype).tobytes()
        if product.one_header:
            return {"quabo_num": self._number % 4, **self._packet(now_ns)}, pixels
        return {f"quabo_{number}": self._packet(now_ns + 4 * number) for number in range(4)}, pixels

    def _packet(self, now_ns: int) -> dict[str, int]:
        seconds, nanos = divmod(now_ns, 1_000_000_000)
        return {
            "pkt_num": self._number % 65536,
            "pkt_tai": (seconds + TAI_MINUS_UTC_S) % 1024,
            "pkt_nsec": nanos,
            "tv_sec": seconds,
            "tv_usec": nanos // 1000,
        }


class Archive:
    """The frames of a PFF file, over and over, with the headers of that day."""

    def __init__(self, path: Path, product: Product) -> None:
        data = path.read_bytes()
        self._frames: list[tuple[dict[str, Any], bytes]] = []
        at = 0
        while isinstance(found := next_frame(data, at, product.image_bytes), Found):
            self._frames.append((found.header, data[found.image_at : found.end]))
            at = found.end
        if not self._frames:
            raise StreamError(f"The archive {path} holds no frame of {product.name}.")
        self._next = 0

    def frame(self, product: Product, now_ns: int) -> tuple[dict[str, Any], bytes]:
        """Return the next one."""
        frame = self._frames[self._next % len(self._frames)]
        self._next += 1
        return frame


class Cameras:
    """The frames of several modules: each product of each, in turn."""

    def __init__(self, modules: tuple[int, ...], products: tuple[str, ...], archives: Mapping[str, Path]) -> None:
        """`archives`: product -> recorded file, instead of generated frames."""
        self._cameras: list[tuple[int, Product, Sky | Archive]] = []
        for module_id in modules:
            for name in products:
                product, archive = PRODUCTS[name], archives.get(name)
                camera = Archive(archive, product) if archive is not None else Sky(module_id)
                self._cameras.append((module_id, product, camera))

    def frames(self) -> Iterator[tuple[int, Product, dict[str, Any], bytes]]:
        """Yield module id, product, header and pixels of the next frame of each."""
        now_ns = time.time_ns()
        for module_id, product, camera in self._cameras:
            yield module_id, product, *camera.frame(product, now_ns)


def archives_of(config: SimulationConfig) -> dict[str, Path]:
    """Product -> archived file, of those that a configuration names."""
    named = ((config.movie_type, config.source_data.movie_pff_path), (config.ph_type, config.source_data.ph_pff_path))
    return {str(product): Path(path) for product, path in named if path is not None}
