"""Write a run as the acquisition software does: four files per module, roll-over by size, fixed-width headers."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from fieldstation.stream.model import PRODUCTS, Product
from fieldstation.stream.pff import file_name, format_frame


def utc_stamp(now: dt.datetime | None = None) -> str:
    """Return a time as in run and file names: ISO, UTC, whole seconds, Z."""
    return (now or dt.datetime.now(dt.UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_folder(data_dir: Path, module_id: int, start: str, observatory: str = "Lick", kind: str = "sci-data") -> Path:
    """Return `module_<id>/obs_<observatory>.start_<UTC>.runtype_<kind>.pffd` under the data directory."""
    return data_dir / f"module_{module_id}" / f"obs_{observatory}.start_{start}.runtype_{kind}.pffd"


class PffWriter:
    """One module's files. A file that has grown past `max_bytes` is followed by one with seqno + 1 and a new start.

    As documented, img8 and img16 share one counter, ph256 and ph1024 another; all four files of seqno 0 exist from
    the start, and unused ones stay empty. `max_bytes` 0 means no limit.
    """

    def __init__(
        self,
        folder: Path,
        module_id: int,
        *,
        max_bytes: int = 0,
        clock: Callable[[], str] = utc_stamp,
        products: Mapping[str, Product] = PRODUCTS,
    ) -> None:
        self.folder = folder
        self.module_id = module_id
        self._max_bytes = max_bytes
        self._clock = clock
        self._seqno = {product.type: 0 for product in products.values()}
        self._files: dict[str, BinaryIO] = {}
        self._sizes: dict[str, int] = {}
        self.opened: list[Path] = []  # in order, those that a roll-over left behind included
        folder.mkdir(parents=True, exist_ok=True)
        start = clock()
        for product in products.values():
            self._open(product, start)

    def _open(self, product: Product, start: str) -> None:
        path = self.folder / file_name(start, product, self.module_id, self._seqno[product.type])
        # Unbuffered: whoever tails the file sees a frame as soon as it is written, whole.
        self._files[product.name] = path.open("ab", buffering=0)
        self._sizes[product.name] = path.stat().st_size
        self.opened.append(path)

    def write(self, product: Product, header: Mapping[str, Any], pixels: bytes) -> None:
        """Append one frame."""
        self.write_raw(product, format_frame(header, pixels, product.one_header))

    def write_raw(self, product: Product, data: bytes) -> None:
        """Append bytes as they are: a frame that was formatted before, or one that is damaged on purpose."""
        if self._max_bytes and self._sizes[product.name] > self._max_bytes:
            self.roll_over(product)
        self._files[product.name].write(data)
        self._sizes[product.name] += len(data)

    def roll_over(self, product: Product) -> None:
        """Go to the next file of this product."""
        self._files[product.name].close()
        self._seqno[product.type] += 1
        self._open(product, self._clock())

    @property
    def paths(self) -> list[Path]:
        """All files of the run so far."""
        return sorted(self.folder.glob("*.pff"))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()

    def __enter__(self) -> PffWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
