"""What a simulated circuit does: a pure function of the bitstream's bytes and the board's serial.

So a test can tell from a result which file it belongs to and which board measured it.
"""

from __future__ import annotations

import importlib
import random
import zlib
from collections.abc import Callable

Answer = Callable[[bytes, str], int]

# Name -> where the function is. One that really works out the circuit can stand beside the one that only hashes.
ANSWERS = {"bytes": "fieldstation.fleet.sim.answers:answer"}

SAMPLES = 500
_MOST_PULSES = 50_000_000


def answer(bitstream: bytes, serial: str) -> int:
    """Return the number of pulses, 0 to 49,999,999, that this board counts for this bitstream."""
    return zlib.crc32(bitstream, zlib.crc32(serial.encode())) % _MOST_PULSES


def samples(bitstream: bytes, serial: str) -> list[int]:
    """Return the 500 ADC readings, 0 to 4095, that this board takes for this bitstream."""
    source = random.Random(answer(bitstream, serial))
    return [source.randrange(4096) for _ in range(SAMPLES)]


def load(name: str) -> Answer:
    """Return the answer function called `name`."""
    module, _, attribute = ANSWERS[name].partition(":")
    function: Answer = getattr(importlib.import_module(module), attribute)
    return function
