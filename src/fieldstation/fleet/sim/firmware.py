"""The firmwares of a simulated board: what they print, and what they do with the bytes they get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fieldstation.fleet.sim.answers import Ask

BITSTREAM_BYTES = 104_090
WAITING = "Waiting for bitstream transfer"


@dataclass(slots=True)
class Habits:
    """How a board behaves: delays in seconds, and faults as name -> how many times they are still to happen.

    Faults: `drop_byte` (loses one byte of the next bitstream), `hang` (says nothing more until it is flashed),
    `garbage` (unreadable instead of the result), `unplug` (vanishes in the middle of the next bitstream),
    `wrong_firmware` (comes back from the next flash with the default firmware), `mute` (the default firmware says
    nothing), `ignore_touch` (no boot loader), `wrong_disk` (the boot loader's disk holds something else), `stuck` (says
    nothing and has no boot loader until its power is cut).
    """

    boot_s: float = 0.0  # from the touch to the boot loader's disk, and from a copied file to the new tty
    measure_s: float = 0.0  # from the last byte to the result
    watchdog_s: float = 2.0
    banner_s: float = 0.05  # between two lines of the default firmware
    back_s: float = 0.5  # until a board that unplugged itself is back
    faults: dict[str, int] = field(default_factory=dict)

    def fault(self, name: str) -> bool:
        """Say whether the fault is due now, and count it."""
        left = self.faults.get(name, 0)
        if left > 0:
            self.faults[name] = left - 1
        return left > 0


class Firmware:
    """What runs on a board. `say` prints text; `vanish` unplugs the board."""

    def __init__(self, habits: Habits, say: Callable[[str], None], vanish: Callable[[], None]) -> None:
        self.habits = habits
        self.say = say
        self.vanish = vanish
        self._timer: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """Somebody opened the line."""

    def received(self, data: bytes) -> None:
        """Bytes came in."""

    def stop(self) -> None:
        """Power off."""
        if self._timer is not None:
            self._timer.cancel()

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, call)

    def stop_timer(self) -> None:
        """Forget what was to happen later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class DefaultFirmware(Firmware):
    """Prints `default firmware` in a loop."""

    def opened(self) -> None:
        """Begin to print."""
        self._print()

    def _print(self) -> None:
        if not (self.habits.faults.get("mute") or self.habits.faults.get("stuck")):
            self.say("default firmware\r\n")
        self._later(self.habits.banner_s, self._print)


class EvaluatingFirmware(Firmware):
    """Takes bitstreams and measures; `kind` is pulsecount or variance."""

    def __init__(
        self,
        habits: Habits,
        say: Callable[[str], None],
        vanish: Callable[[], None],
        *,
        kind: str,
        serial: str,
        ask: Ask,
    ) -> None:
        super().__init__(habits, say, vanish)
        self._kind = kind
        self._serial = serial
        self._ask = ask
        self._buffer = bytearray()
        self._busy = False
        self._hung = False
        self._off = False

    def opened(self) -> None:
        """Greet, as the USB stack does once the host listens."""
        self._hung = self._hung or bool(self.habits.faults.get("stuck"))
        if not self._hung:
            self.say(f"USB Connected :)\r\n{WAITING}\r\n")

    def received(self, data: bytes) -> None:
        """Collect one bitstream; what is too much belongs to the next."""
        if self._hung or self.habits.faults.get("stuck"):
            return
        if not self._buffer and not self._busy:
            self._begin()
        self._buffer += data
        if self.habits.faults and len(self._buffer) >= BITSTREAM_BYTES // 2 and self._spoil():
            return
        if len(self._buffer) >= BITSTREAM_BYTES and not self._busy:
            self._take()

    def stop(self) -> None:
        """Power off; an answer that is still worked out comes too late."""
        self._off = True
        super().stop()

    def _begin(self) -> None:
        self._later(self.habits.watchdog_s, self._watchdog)
        self.say("Bitstream transfer started\r\nReceiving bitstream\r\n")

    def _spoil(self) -> bool:
        if self.habits.fault("drop_byte"):
            del self._buffer[-1:]
        if self.habits.fault("hang"):
            self.stop_timer()
            self._hung = True
        elif self.habits.fault("unplug"):
            self.stop_timer()
            self.vanish()
            return True
        return self._hung

    def _take(self) -> None:
        self.stop_timer()
        bitstream = bytes(self._buffer[:BITSTREAM_BYTES])
        del self._buffer[:BITSTREAM_BYTES]
        self._busy = True
        if self.habits.measure_s > 0:
            self._later(self.habits.measure_s, lambda: self._measure(bitstream))
        else:
            self._measure(bitstream)

    def _measure(self, bitstream: bytes) -> None:
        self._ask(self._kind, bitstream, self._serial, self._report)

    def _report(self, result: list[str]) -> None:
        if self._off:
            return  # unplugged or flashed anew while the answer was worked out
        self._busy = False
        lines = [
            "Received bitstream in 1000 us :)",
            "Flashing FPGA",
            "FPGA Flash times (us): init 1, start b 2, open c 3, write d 4, close e 5",
        ]
        if self.habits.fault("garbage"):
            lines += ["\x00\xfepul#es: banana", ", pulses: "]
        else:
            lines += result
        self.say("\r\n".join([*lines, "IDLE", WAITING, ""]))
        if self._buffer:
            self._begin()

    def _watchdog(self) -> None:
        self.say(f"Watchdog timeout, {len(self._buffer)} bytes received of {BITSTREAM_BYTES}\r\nIDLE\r\n{WAITING}\r\n")
        self._buffer.clear()
