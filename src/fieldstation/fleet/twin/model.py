"""What is asked of the twin and what it answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from fieldstation.fleet.twin.netlist import CLOCK_PIN, COUNTED_PIN, Pin

MODEL = 2  # raised when the twin's answers change, so that answers kept by an older one are not used
BITSTREAM_BYTES = 104_090  # iCE40UP5K, without comment header


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the board runs a design. The defaults are the pico2-ice and its firmware.

    Sampling (`variance`): the pin goes through an RC low pass of `rc_s` into a 12-bit ADC at the supply voltage; after
    `settle_s` it takes `samples` samples, `sample_interval_s` apart.
    """

    clock_hz: int = 48_000_000
    window_s: float = 1.0
    clock_pin: Pin = CLOCK_PIN
    counted_pin: Pin = COUNTED_PIN
    settle_s: float = 0.1
    samples: int = 500
    sample_interval_s: float = 100e-6
    rc_s: float = 1e-3

    def digest(self, bitstream: bytes, sampled: bool) -> str:
        """Return the name under which the answer for `bitstream` is kept: SHA-256 of it and of what is asked."""
        asked = json.dumps({**asdict(self), "sampled": sampled, "model": MODEL}, sort_keys=True).encode()
        return hashlib.sha256(bitstream + asked).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the board would say: rising edges in the window, or ADC samples (0 to 4095); or why that cannot be known.

    `reason` is empty or one of `undecodable`, `floating_pin`, `undriven_net`, `combinational_loop`, `pll`,
    `hard_block`, `ddr_pin`, `tristate_pin`, `unstable`, `too_long`, `too_large`, `twin_failed`. `period` is the number
    of clock cycles after which the design repeats, 0 when it did not within the window.
    """

    pulses: int | None
    samples: tuple[int, ...] = ()
    period: int = 0
    reason: str = ""
    detail: str = ""


def unknown(reason: str, detail: str) -> Answer:
    """Return the answer of a board that fails to count, and why."""
    return Answer(None, reason=reason, detail=detail)
