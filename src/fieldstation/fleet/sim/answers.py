"""What a simulated circuit does. By default a pure function of the bitstream's bytes and the board's serial.

So a test can tell from a result which file it belongs to and which board measured it. The digital twin, which works out
what the circuit really does, stands in `sim/twin.py`.
"""

from __future__ import annotations

import importlib
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

Tell = Callable[[list[str]], None]
# Gets kind, bitstream, serial, and what to call, now or later, with the lines that the firmware prints as its result.
Ask = Callable[[str, bytes, str, Tell], None]

# Name -> what makes an `Ask` for the length of a block, from the settings as JSON.
ANSWERS = {"bytes": "fieldstation.fleet.sim.answers:hashed", "twin": "fieldstation.fleet.sim.twin:twin"}

SAMPLES = 500
HEAD_BYTES = 256
_MOST_PULSES = 50_000_000


def answer(bitstream: bytes, serial: str) -> int:
    """Return the number of pulses, 0 to 49,999,999, that this board counts for this bitstream."""
    return zlib.crc32(bitstream, zlib.crc32(serial.encode())) % _MOST_PULSES


def samples(bitstream: bytes, serial: str) -> list[int]:
    """Return the 500 ADC readings, 0 to 4095, that this board takes for this bitstream."""
    source = random.Random(answer(bitstream, serial))
    return [source.randrange(4096) for _ in range(SAMPLES)]


def pulse_lines(pulses: int) -> list[str]:
    """Return what the pulse count firmware prints."""
    return [f", pulses: {pulses}"]


def sample_lines(taken: list[int] | tuple[int, ...]) -> list[str]:
    """Return what the variance firmware prints."""
    return ["Sampling ADC", "samples: " + ",".join(map(str, taken))]


@asynccontextmanager
async def hashed(_: str) -> AsyncIterator[Ask]:
    """Answer at once, from the bytes."""

    def ask(kind: str, bitstream: bytes, serial: str, tell: Tell) -> None:
        sampled = kind == "variance"
        tell(sample_lines(samples(bitstream, serial)) if sampled else pulse_lines(answer(bitstream, serial)))

    yield ask


def journaled(ask: Ask, journal: Path) -> Ask:
    """Add a line of JSON to `journal` for each bitstream that a board measures: who commands a board shows there.

    `{"serial", "kind", "head"}`; `head` is the first 256 bytes, one character each, up to the first zero.
    """

    def noted(kind: str, bitstream: bytes, serial: str, tell: Tell) -> None:
        head = bitstream[:HEAD_BYTES].partition(b"\0")[0].decode("latin-1")
        with journal.open("a") as file:
            file.write(json.dumps({"serial": serial, "kind": kind, "head": head}) + "\n")
        ask(kind, bitstream, serial, tell)

    return noted


def load(name: str) -> Callable[[str], AbstractAsyncContextManager[Ask]]:
    """Return what answers under `name`."""
    module, _, attribute = ANSWERS[name].partition(":")
    made: Callable[[str], AbstractAsyncContextManager[Ask]] = getattr(importlib.import_module(module), attribute)
    return made
