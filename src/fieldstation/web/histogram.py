"""The distribution of pulse heights: the brightest pixel of each image, over the last ones."""

from __future__ import annotations

from collections import deque
from typing import Any

KEPT = 5000
BINS = 60


class Heights:
    """The brightest pixels of one module's newest pulse-height images."""

    def __init__(self) -> None:
        self.total = 0
        self._highest: deque[int] = deque(maxlen=KEPT)

    def add(self, highest: int) -> None:
        """Take one image's brightest pixel."""
        self.total += 1
        self._highest.append(highest)

    def histogram(self) -> dict[str, Any]:
        """Return `low`, `high` (ADC values at the outer edges), `counts` of equal bins between, and `total`."""
        if not self._highest:
            return {"low": 0, "high": 1, "counts": [], "total": self.total}
        low, high = min(self._highest), max(self._highest) + 1
        counts = [0] * min(BINS, high - low)
        for value in self._highest:
            counts[(value - low) * len(counts) // (high - low)] += 1
        return {"low": low, "high": high, "counts": counts, "total": self.total}
