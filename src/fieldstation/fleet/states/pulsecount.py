"""Kind `pulsecount`: how many pulses a circuit gives in one second."""

from __future__ import annotations

import re

from fieldstation.fleet.states.bitstream import BitstreamState
from fieldstation.fleet.states.reservable import reservable

KIND = "pulsecount"
_PULSES = re.compile(r"pulses: ([0-9]+)")


@reservable(KIND, "flush_interval_seconds", "flush_at_bitstreams_remaining")
class PulseCountState(BitstreamState):
    """A value is the count as decimal text, as today's clients expect it."""

    firmware = KIND

    def read(self, line: str) -> str | None:
        """Return the count in `, pulses: <n>`."""
        found = _PULSES.search(line)
        return found[1] if found else None
