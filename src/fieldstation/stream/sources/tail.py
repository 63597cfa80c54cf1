"""Read one PFF file that may still grow: complete frames in order, or only the newest one.

Bytes come through `pread`, not a memory map: touching a mapped page of a file that was truncated or whose disk is gone
kills the process with SIGBUS, and an acquisition disk does get unmounted (docs/decisions).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fieldstation.stream.model import Frame
from fieldstation.stream.pff import MAX_HEADER_BYTES, Damaged, Found, PffName, next_frame
from fieldstation.stream.series import HeaderForm, Series, form_of

CHUNK_BYTES = 512 * 1024
_NEWEST_BATCHES = 64
_CHUNKS_PER_CALL = 64


@dataclass(frozen=True, slots=True)
class DamagedStretch:
    """A set-aside part of a file: bytes from `offset` to `end` that are no frame, and why."""

    file: str
    offset: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file has been read: the next byte and the number of the frame that starts there."""

    path: Path
    offset: int
    number: int


class Tail:
    """One open file. Frame numbers count frames; a damaged stretch counts for as many as would have fit into it."""

    def __init__(
        self,
        path: Path,
        name: PffName,
        module_id: int,
        on_damage: Callable[[DamagedStretch], None],
        at: Position | None = None,
    ) -> None:
        self.path = path
        self.offset = at.offset if at else 0
        self.number = at.number if at else 0
        self.behind = False  # the last call gave up its turn before it reached the end
        self._name = name
        self._module_id = module_id
        self._on_damage = on_damage
        self.frame_bytes = 0  # of the last frame seen; 0 before the first
        self._damaged_from: int | None = None
        self._reason = ""
        self._descriptor = -1
        self._identity = (0, 0)
        self._form: HeaderForm | None = None
        self._form_bytes = -1  # the size of the frames it is good for

    def close(self) -> None:
        """Close the file; the next read opens it again where this one stopped."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def position(self) -> Position:
        """Where the next read starts."""
        return Position(self.path, self.offset, self.number)

    def _open(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            status = os.fstat(self._descriptor)
            identity = (status.st_dev, status.st_ino)
            if self._identity not in ((0, 0), identity) or status.st_size < self.offset:
                self._start_again()
            self._identity = identity
        return self._descriptor

    def _start_again(self) -> None:
        self.offset = self.number = self.frame_bytes = 0
        self._damaged_from = None

    def check_identity(self) -> None:
        """Start again from the front when another file has our path, or ours became shorter than what was read."""
        status = self.path.stat()
        if self._descriptor >= 0 and ((status.st_dev, status.st_ino) != self._identity or status.st_size < self.offset):
            self.close()
            self._start_again()
            self._identity = (0, 0)

    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self._open()).st_size

    def read(self, limit: int, until: int | None = None) -> list[Frame]:
        """Return up to `limit` frames that follow the last one read; fewer at the end (or at byte `until`).

        Long damage is read in several calls, so that other files get their turn: `behind` then tells to call again.
        """
        found: list[Frame] = []
        wide = False
        chunks = 0
        self.behind = False
        while len(found) < limit:
            chunks += 1
            if chunks > _CHUNKS_PER_CALL and self._damaged_from is not None:
                self.behind = True
                return found
            size = self._budget(limit - len(found), until, wide)
            # Asked first: a buffer for a whole turn costs more than the one frame that is usually there.
            data = self._pread(min(size, self.size() - self.offset))
            at = 0
            while len(found) < limit:
                result = next_frame(data, at, self._name.product.image_bytes)
                if result is None:
                    break
                at = self._take(data, at, result, found)
            if at == len(data) < size:
                return found  # all that is there, and no beginning of another
            if at == 0:
                if wide or len(data) < size:
                    return found  # nothing complete is left
                wide = True  # a longer frame than the last one, or damage: look further
        return found

    def series(self, count: int) -> Series | None:
        """Return the next `count` frames, or None unless all are there, sound, and of one size and form."""
        size, image_bytes = self.frame_bytes, self._name.product.image_bytes
        if not size or self._damaged_from is not None or self.size() - self.offset < count * size:
            return None
        if self._form is None and self._form_bytes == size:
            return None
        data = self._pread(count * size + 1)
        found = next_frame(data, 0, image_bytes)
        if (
            not isinstance(found, Found)
            or found.end != size
            or data[count * size : count * size + 1] not in (b"", b"{")
        ):
            return None
        text = data[: found.image_at]
        if self._form_bytes != size:
            self._form, self._form_bytes = form_of(text), size
        slots = np.frombuffer(data, np.uint8, count * size).reshape(count, size)
        numbers = self._form.numbers(slots[:, : found.image_at]) if self._form is not None else None
        if numbers is None:
            return None
        taken: list[Frame] = []
        self._take(data, 0, found, taken)
        self.offset += (count - 1) * size
        self.number += count - 1
        return Series(taken[0], numbers, slots)

    def newest(self) -> Frame | None:
        """Return the newest complete frame that was not returned before, or None; skips what lies between.

        None while it is still `behind`.
        """
        self._skip()
        last: Frame | None = None
        for _ in range(_NEWEST_BATCHES):
            frames = self.read(64)
            if self.behind:
                return None
            if len(frames) < 64:
                return frames[-1] if frames else last
            last = frames[-1]
        self.behind = True
        return None

    def _skip(self) -> None:
        size = self.size()
        if size == self.offset:
            return
        if self.frame_bytes == 0:
            probe = next_frame(self._pread(MAX_HEADER_BYTES + 4096), 0, self._name.product.image_bytes)
            if not isinstance(probe, Found):
                return
            self.frame_bytes = probe.end
        frames = (size - self.offset) // self.frame_bytes - 1
        if frames < 2 or self._damaged_from is not None:
            return
        # Fixed-width headers put frame i at i * size. Where that does not hold, the file is read frame by frame.
        at = self.offset + frames * self.frame_bytes
        probe = next_frame(os.pread(self._open(), self.frame_bytes, at), 0, self._name.product.image_bytes)
        if isinstance(probe, Found) and probe.end == self.frame_bytes:
            self.offset = at
            self.number += frames

    def _budget(self, frames: int, until: int | None, wide: bool) -> int:
        size = frames * self.frame_bytes + 1 if self.frame_bytes else MAX_HEADER_BYTES + 4096
        if wide or self._damaged_from is not None or size > CHUNK_BYTES:
            size = CHUNK_BYTES
        return size if until is None else max(0, min(size, until - self.offset))

    def _pread(self, size: int) -> bytes:
        return os.pread(self._open(), size, self.offset) if size > 0 else b""

    def _take(self, data: bytes, at: int, result: Found | Damaged, found: list[Frame]) -> int:
        """Record one result of the parser and return where the next one starts in `data`."""
        if isinstance(result, Damaged):
            if self._damaged_from is None:
                self._damaged_from, self._reason = self.offset, result.reason
            self.offset += result.end - at
            return result.end
        if self._damaged_from is not None:
            if self.frame_bytes:
                self.number += (self.offset - self._damaged_from) // self.frame_bytes
            self._on_damage(DamagedStretch(self.path.name, self._damaged_from, self.offset, self._reason))
            self._damaged_from = None
        product = self._name.product
        found.append(
            Frame(
                product.type,
                self._module_id,
                product.name,
                product.shape,
                product.bytes_per_pixel,
                result.header,
                data[result.image_at : result.end],
                self.path.name,
                self.number,
            )
        )
        self.frame_bytes = result.end - at
        self.offset += self.frame_bytes
        self.number += 1
        return result.end
