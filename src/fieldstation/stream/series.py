"""Frames of one file whose headers differ in their figures only, read all at once.

Where a reader is behind, a frame at a time is too slow: taking its header apart is most of the work. The acquisition
software writes headers with fields of fixed width, so a whole turn of frames is checked and read by columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fieldstation.stream.model import Frame
from fieldstation.stream.pff import Found, next_frame, parse_header

_FIELD = re.compile(rb":( *\d{1,15})(?!\d)")  # what a double holds exactly
_BLANK, _ZERO = 0x20, 0x30


class HeaderForm:
    """The letters up to the pixels and, between them, the fields for the numbers: blanks, then figures."""

    def __init__(self, text: bytes, fields: Sequence[tuple[int, int]]) -> None:
        self._letters = np.frombuffer(text, np.uint8)
        self._fixed = np.full(len(text), 0xFF, np.uint8)
        for begin, end in fields:
            self._fixed[begin:end] = 0
        widths = [end - begin for begin, end in fields]
        self._columns = np.flatnonzero(self._fixed == 0)
        self._begins = np.cumsum([0, *widths[:-1]])
        self._last = np.zeros(len(self._columns), np.bool_)
        self._last[np.cumsum(widths) - 1] = True
        self._weights = np.concatenate([10.0 ** np.arange(width - 1, -1, -1) for width in widths])

    def numbers(self, texts: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Return the numbers (a row for each header) of texts of this length; None unless all have this form."""
        if ((texts ^ self._letters) & self._fixed).any():
            return None
        figures = texts.take(self._columns, axis=1)
        blank = figures == _BLANK
        leading = np.empty_like(blank)  # nothing but blanks before it
        leading[:, 1:] = blank[:, :-1]
        leading[:, self._begins] = True
        # JSON knows no figure after a blank, and no zero in front of a number.
        wrong = ~blank & (figures - _ZERO > 9)
        wrong |= blank & (self._last | ~leading)
        wrong |= (figures == _ZERO) & leading & ~self._last
        if wrong.any():
            return None
        found: NDArray[np.float64] = np.add.reduceat((figures & 0x0F) * self._weights, self._begins, axis=1)
        return found


def form_of(text: bytes) -> HeaderForm | None:
    """Return the form of the text up to the pixels; None if it holds more than plain numbers, or tells a quarter."""
    header = parse_header(text[:-1])
    if header is None or "quabo_num" in header:
        return None  # quarters take turns: their frames do not belong to one place
    numbers: list[Any] = []
    for value in header.values():
        numbers += value.values() if isinstance(value, dict) else [value]
    fields = [found.span(1) for found in _FIELD.finditer(text)]
    # A text may hold what looks like a field, and a key may come twice: then these differ.
    if not numbers or numbers != [int(text[begin:end]) for begin, end in fields]:
        return None
    return HeaderForm(text, fields)


@dataclass(frozen=True, slots=True, eq=False)
class Series(Sequence[Frame]):
    """Consecutive frames of one file. `slots` has a row for each, its bytes on disk; `numbers` those of its header.

    Numbers are in the order of the header. A frame that is asked for is taken apart then, in the ordinary way.
    """

    first: Frame
    numbers: NDArray[np.float64]
    slots: NDArray[np.uint8]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The bytes of the pixels, a row for each frame."""
        return self.slots[:, self.slots.shape[1] - len(self.first.pixels) :]

    def __len__(self) -> int:
        return len(self.slots)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        data = self.slots[at].tobytes()
        found = next_frame(data, 0, len(self.first.pixels))
        assert isinstance(found, Found)
        return replace(
            self.first, header=found.header, pixels=data[found.image_at : found.end], number=self.first.number + at
        )
