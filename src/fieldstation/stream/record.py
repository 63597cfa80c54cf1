"""Write a live stream to disk, every frame: as a PFF run directory or a Zarr group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from fieldstation.stream.convert import ConversionError, FrameTables, open_store
from fieldstation.stream.model import PRODUCTS, Frame
from fieldstation.stream.writer import PffWriter, run_folder, utc_stamp


class Recorder(Protocol):
    """Takes frames in the order in which they arrive."""

    def add(self, frame: Frame) -> None: ...  # noqa: D102 - a protocol: the name says it
    def close(self) -> None: ...  # noqa: D102 - a protocol: the name says it


class PffRecorder:
    """A data directory as the acquisition software writes one: a run folder per module."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._start = utc_stamp()
        self._writers: dict[int, PffWriter] = {}
        self._sources: dict[tuple[int, str], str] = {}

    def add(self, frame: Frame) -> None:
        """Append it; when the source rolled over to another file, so do we."""
        writer = self._writers.get(frame.module_id)
        if writer is None:
            folder = run_folder(self._data_dir, frame.module_id, self._start, "RECORDED")
            writer = self._writers[frame.module_id] = PffWriter(folder, frame.module_id)
        product = PRODUCTS[frame.product]
        key = (frame.module_id, frame.product)
        if self._sources.setdefault(key, frame.file) != frame.file:
            self._sources[key] = frame.file
            writer.roll_over(product)
        writer.write(product, frame.header, frame.pixels)

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()


def open_recorder(out: Path, form: str) -> Recorder:
    """Return a recorder; an existing target is refused, nothing is overwritten."""
    if form == "zarr":
        return FrameTables(open_store(out, "zarr"))  # in the layout of `fieldstation stream convert`
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConversionError(target=out, problem="it exists already and is not an empty folder")
    return PffRecorder(out)


async def record(
    frames: AsyncIterator[Frame], out: Path, form: str = "pff", limit: int | None = None, seconds: float | None = None
) -> int:
    """Write frames until the stream ends, `limit` are written or `seconds` have passed; returns how many.

    Frames of products that PFF does not know (uploads) are left out.
    """
    recorder = await asyncio.to_thread(open_recorder, out, form)
    count = 0
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for frame in frames:
                    if frame.product:
                        recorder.add(frame)
                        count += 1
                    if limit is not None and count >= limit:
                        break
    finally:
        recorder.close()
    return count
