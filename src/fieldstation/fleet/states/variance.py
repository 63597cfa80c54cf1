"""Kind `variance`: how much a circuit's output moves, from 500 samples at 10 kHz."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from fieldstation.fleet.errors import BadRequestError
from fieldstation.fleet.states.bitstream import BitstreamState
from fieldstation.fleet.states.device import Device
from fieldstation.fleet.states.reservable import reservable

KIND = "variance"
_SAMPLES = re.compile(r"samples:\s*([0-9]+(?:\s*,\s*[0-9]+)*)")


def fitness(samples: Sequence[int]) -> float:
    """Return the sum of the steps between neighbours over the number of samples; 0.0 for fewer than two."""
    if len(samples) < 2:
        return 0.0
    return sum(abs(b - a) for a, b in itertools.pairwise(samples)) / len(samples)


@reservable(KIND, "flush_interval_seconds", "flush_at_bitstreams_remaining", "send_waveform")
class VarianceState(BitstreamState):
    """A value is the fitness as a float, or [fitness, [samples]] when the waveform was asked for."""

    firmware = KIND

    def __init__(
        self,
        device: Device,
        flush_interval_seconds: float | None = None,
        flush_at_bitstreams_remaining: int | None = None,
        send_waveform: bool | None = None,
    ) -> None:
        super().__init__(device, flush_interval_seconds, flush_at_bitstreams_remaining)
        if not isinstance(send_waveform, bool | None):
            raise BadRequestError(
                field="args.send_waveform", problem=f"it must be true or false, not {send_waveform!r}"
            )
        self._send_waveform = bool(send_waveform)

    def read(self, line: str) -> Any:
        """Return the value in `samples: v1,v2,...`."""
        found = _SAMPLES.search(line)
        if not found:
            return None
        samples = [int(sample) for sample in found[1].split(",")]
        return [fitness(samples), samples] if self._send_waveform else fitness(samples)
