"""A simulated Hashpipe: generated (or archived) frames, written as the real acquisition software writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fieldstation.stream.config import SimulationConfig
from fieldstation.stream.errors import StreamError
from fieldstation.stream.model import PRODUCTS, ImageType, Product
from fieldstation.stream.pff import Found, next_frame
from fieldstation.stream.writer import PffWriter

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


@dataclass(slots=True)
class SimulatedHashpipe:
    """Writes runs of several modules. `step` writes one frame of each product of each module."""

    data_dir: Path
    modules: tuple[int, ...] = (224,)
    products: tuple[str, ...] = ("img16", "ph256")
    max_bytes: int = 0
    run_template: str = "module_{module_id}/obs_SIMULATE"
    archives: dict[str, Path] = field(default_factory=dict)  # product -> recorded file, instead of generated frames
    keep_files: int | None = None  # delete all but so many of the newest files of a product
    _writers: dict[int, PffWriter] = field(default_factory=dict)
    _cameras: dict[tuple[int, str], Sky | Archive] = field(default_factory=dict)

    def open(self) -> None:
        """Begin the run."""
        for module_id in self.modules:
            folder = self.data_dir / self.run_template.format(module_id=module_id)
            self._writers[module_id] = PffWriter(folder, module_id, max_bytes=self.max_bytes)
            for name in self.products:
                archive = self.archives.get(name)
                self._cameras[module_id, name] = (
                    Archive(archive, PRODUCTS[name]) if archive is not None else Sky(module_id)
                )

    def frames(self) -> Iterator[tuple[int, Product, dict[str, Any], bytes]]:
        """Yield the next frame of each product of each module."""
        now_ns = time.time_ns()
        for (module_id, name), camera in self._cameras.items():
            product = PRODUCTS[name]
            header, pixels = camera.frame(product, now_ns)
            yield module_id, product, header, pixels

    def step(self) -> int:
        """Write one frame of each; returns how many."""
        count = 0
        for module_id, product, header, pixels in self.frames():
            self._writers[module_id].write(product, header, pixels)
            count += 1
        return count

    def writer(self, module_id: int) -> PffWriter:
        """Return a module's writer, to damage its files on purpose."""
        return self._writers[module_id]

    def prune(self) -> None:
        """Delete old files, so that a simulation that runs for weeks fills no disk."""
        if self.keep_files is None:
            return
        for writer in self._writers.values():
            for name in self.products:
                for path in sorted(writer.folder.glob(f"*.dp_{name}.*"), key=lambda p: p.stat().st_mtime)[
                    : -self.keep_files
                ]:
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the run."""
        for writer in self._writers.values():
            writer.close()


def simulated_hashpipe(root: Path, config: SimulationConfig) -> SimulatedHashpipe:
    """Return the writer that a configuration describes; roll-over after `frames_per_pff` movie frames."""
    strategy = config.strategies.get(config.simulation_mode, {})
    frames_per_file = int(strategy.get("frames_per_pff", 10_000))
    product = PRODUCTS[config.movie_type]
    archives = {
        str(name): Path(path)
        for name, path in (
            (config.movie_type, config.source_data.movie_pff_path),
            (config.ph_type, config.source_data.ph_pff_path),
        )
        if path is not None
    }
    return SimulatedHashpipe(
        root,
        tuple(config.sim_module_ids),
        (config.movie_type, config.ph_type),
        max_bytes=frames_per_file * (product.image_bytes + 492),
        run_template=config.filesystem_cfg.sim_run_dir_template,
        archives=archives,
        keep_files=3,
    )
