"""Settings of the twin: how the boards run designs, what one evaluation may take, where answers are kept."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fieldstation.fleet.twin.cache import AnswerCache
from fieldstation.fleet.twin.model import Conditions
from fieldstation.fleet.twin.netlist import CLOCK_PIN, COUNTED_PIN, Pin
from fieldstation.fleet.twin.service import Limits

_PIN = r"^io_\d{1,2}_\d{1,2}_[01]$"


class TwinSettings(BaseModel):
    """The table `[fleet.worker.settings.simulated.twin]`. Pins have IceStorm's names: `io_<column>_<row>_<pad>`."""

    model_config = ConfigDict(extra="forbid")

    clock_hz: int = Field(default=48_000_000, ge=1, le=10**9, description="Frequency fed to the clock pin.")
    window_s: float = Field(default=1.0, gt=0, le=3600, description="Seconds for which pulses are counted.")
    clock_pin: str = Field(default=str(CLOCK_PIN), pattern=_PIN, description="Clock input; default: SG48 pin 35.")
    counted_pin: str = Field(
        default=str(COUNTED_PIN), pattern=_PIN, description="Counted output; default: SG48 pin 27."
    )
    rc_s: float = Field(default=1e-3, gt=0, le=10, description="Time constant of the low pass before the ADC.")
    timeout_s: float = Field(default=20.0, gt=0, description="Seconds that one unseen bitstream may take.")
    memory_bytes: int = Field(default=1 << 30, ge=1 << 24, description="Memory that each process of it may take.")
    processes: int = Field(default=0, ge=0, le=256, description="Bitstreams computed at a time; 0: one per core.")
    cache: Path | None = Field(default=None, description="Folder for answers; by default in the user's cache folder.")
    cache_bytes: int = Field(default=64 << 20, ge=1, description="Size of that folder; the least used go first.")

    def conditions(self) -> Conditions:
        """Return how the boards run a design."""
        return Conditions(
            clock_hz=self.clock_hz,
            window_s=self.window_s,
            clock_pin=_pin(self.clock_pin),
            counted_pin=_pin(self.counted_pin),
            rc_s=self.rc_s,
        )

    def limits(self) -> Limits:
        """Return what one evaluation may take."""
        return Limits(self.timeout_s, self.memory_bytes, self.processes)

    def answer_cache(self) -> AnswerCache:
        """Return where answers are kept."""
        user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return AnswerCache(self.cache or Path(user) / "fieldstation" / "twin", self.cache_bytes)


def _pin(name: str) -> Pin:
    x, y, pad = map(int, name.removeprefix("io_").split("_"))
    return Pin(x, y, pad)
