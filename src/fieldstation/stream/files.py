"""PFF files that are finished: frames by number through a memory map, and a report of what is in them."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldstation.stream.errors import DataDirError, FrameFormatError, FrameNumberError, PffNameError
from fieldstation.stream.model import Frame
from fieldstation.stream.pff import Found, PffName, next_frame, parse_name
from fieldstation.stream.sources.run import RunFollower
from fieldstation.stream.sources.tail import DamagedStretch, Tail


class PffFile:
    """The frames of one file. `file[i]` is frame i, counted as a live reader counts; iterating passes over damage.

    A memory map: do not use it on a file that may be truncated meanwhile (see docs/decisions).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name: PffName = parse_name(path.name)
        self.damaged: list[DamagedStretch] = []
        self._index: dict[int, int] | None = None  # frame number -> offset, made when frames are not all of one size
        with path.open("rb") as file:
            self._size = path.stat().st_size
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._size else None
        first = self._at(0)
        self._frame_bytes = first.end if first else 0
        if self._frame_bytes == 0 or not self._regular():
            self._index = self._scan()

    def _scan(self) -> dict[int, int]:
        offsets = {}
        tail = Tail(self.path, self.name, self.module_id, self.damaged.append)
        try:
            while (frames := tail.read(1)) or tail.behind:
                for frame in frames:
                    offsets[frame.number] = tail.offset - tail.frame_bytes
        finally:
            tail.close()
        return offsets

    @property
    def module_id(self) -> int:
        """From the name; 0 when the name tells none."""
        return self.name.module_id or 0

    def _at(self, offset: int) -> Found | None:
        if self._map is None or offset >= self._size:
            return None
        found = next_frame(self._map, offset, self.name.product.image_bytes)  # type: ignore[arg-type]  # indexes, slices and finds like bytes
        return found if isinstance(found, Found) else None

    def _regular(self) -> bool:
        """Tell whether every slot of the first frame's size holds the marks of a frame; only these bytes are read."""
        slots = self._slots()
        marker = self._frame_bytes - self.name.product.image_bytes - 1
        return bool(
            (slots[:, 0] == 0x7B).all()
            and (slots[:, marker] == 0x2A).all()
            and (slots[:, marker - 2 : marker] == 0x0A).all()
        )

    def _slots(self) -> NDArray[np.uint8]:
        count = self._size // self._frame_bytes
        assert self._map is not None
        return np.frombuffer(self._map, np.uint8, count * self._frame_bytes).reshape(count, self._frame_bytes)

    def __len__(self) -> int:
        if self._index is not None:
            return max(self._index, default=-1) + 1
        return self._size // self._frame_bytes

    def __getitem__(self, number: int) -> Frame:
        if not 0 <= number < len(self):
            raise FrameNumberError(file=self.path.name, count=len(self), number=number)
        offset = number * self._frame_bytes if self._index is None else self._index.get(number, -1)
        found = self._at(offset) if offset >= 0 else None
        if found is None:
            raise FrameFormatError(where=f"number {number} of {self.path.name}", problem="it is damaged")
        assert self._map is not None
        product = self.name.product
        return Frame(
            product.type,
            self.module_id,
            product.name,
            product.shape,
            product.bytes_per_pixel,
            found.header,
            self._map[found.image_at : found.end],
            self.path.name,
            number,
        )

    def __iter__(self) -> Iterator[Frame]:
        tail = Tail(self.path, self.name, self.module_id, lambda _: None)
        try:
            while (frames := tail.read(64)) or tail.behind:
                yield from frames
        finally:
            tail.close()

    @property
    def images(self) -> NDArray[Any]:
        """All images of a regular file as one array (frames, rows, columns), without reading or copying them."""
        if self._index is not None:
            raise FrameFormatError(where=self.path.name, problem="its frames are not all of one size; iterate instead")
        product = self.name.product
        pixels = self._slots()[:, self._frame_bytes - product.image_bytes :]
        return pixels.view(product.dtype).reshape(-1, *product.shape)

    def close(self) -> None:
        """Drop the map; arrays that still use it keep it alive."""
        if self._map is not None:
            with contextlib.suppress(BufferError):
                self._map.close()
            self._map = None

    def __enter__(self) -> PffFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pff_files(source: Path) -> list[tuple[Path, PffName]]:
    """Return the PFF files of a file, a run folder or a data directory (its newest runs), in order."""
    if source.is_file():
        return [(source, parse_name(source.name))]
    if not source.exists():
        raise DataDirError(path=source, problem="does not exist")
    follower = RunFollower(source)
    follower.rescan()
    return [item for _, tail in sorted(follower.products.items()) for item in tail.files]


def inspect(source: Path) -> list[dict[str, Any]]:
    """Read everything and return per file: `frames`, `damaged` stretches, and `tail_bytes` of an incomplete frame."""
    reports = []
    for path, name in pff_files(source):
        damaged: list[DamagedStretch] = []
        tail = Tail(path, name, name.module_id or 0, damaged.append)
        count = 0
        try:
            while (frames := tail.read(64)) or tail.behind:
                count += len(frames)
            rest = tail.size() - tail.offset
        finally:
            tail.close()
        reports.append(
            {
                "file": path.name,
                "product": name.product.name,
                "module_id": name.module_id,
                "frames": count,
                "tail_bytes": rest,
                "damaged": [{"offset": d.offset, "end": d.end, "reason": d.reason} for d in damaged],
            }
        )
    return reports


__all__ = ["PffFile", "PffNameError", "inspect", "pff_files"]
