"""Cut a board's power for a moment, with a command that knows the hub (such as uhubctl)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fieldstation.core.children import output_of
from fieldstation.fleet.errors import FleetError

PLACEHOLDERS = ("serial", "location", "port")
_USB = re.compile(r"\d+-\d+(?:\.\d+)*")
SAID = 300  # characters of what a command wrote that go into a reason


class PowerCycleError(FleetError):
    """The power of {serial} could not be switched: {problem}."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a board is plugged in, as uhubctl has it: the hub's location (`1-4`) and the number of the port on it."""

    location: str
    port: str


def usb_place(devpath: str) -> Place | None:
    """Return the hub and port in the kernel's path of a node, such as /devices/.../usb1/1-4/1-4.2/1-4.2:1.0/tty/..."""
    devices = [part for part in devpath.split("/") if _USB.fullmatch(part)]
    if not devices:
        return None
    location, _, port = devices[-1].rpartition("." if "." in devices[-1] else "-")
    return Place(location, port)


def command_for(template: Sequence[str], serial: str, place: Place | None) -> list[str] | None:
    """Fill in {serial}, {location} and {port}; None when the command needs a place and none is known."""
    if place is None:
        if any(f"{{{name}}}" in word for word in template for name in ("location", "port")):
            return None
        place = Place("", "")
    values = {"serial": serial, "location": place.location, "port": place.port}
    # One pass over each word: what is filled in is never looked at again.
    pattern = re.compile("|".join(rf"\{{{name}\}}" for name in PLACEHOLDERS))
    return [pattern.sub(lambda found: values[found[0][1:-1]], word) for word in template]


@dataclass(slots=True)
class PowerHook:
    """The configured command. `places` are those of boards that never told theirs; one command runs at a time."""

    command: Sequence[str]
    timeout_s: float = 30.0
    places: Mapping[str, Place] = field(default_factory=dict)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    def can(self, serial: str, seen: Place | None) -> bool:
        """Tell whether the command can be made for this board."""
        return self._words(serial, seen) is not None

    def _words(self, serial: str, seen: Place | None) -> list[str] | None:
        return command_for(self.command, serial, self.places.get(serial, seen))

    async def cycle(self, serial: str, seen: Place | None) -> str:
        """Run the command and return it as text; raises PowerCycleError."""
        words = self._words(serial, seen)
        if words is None:
            raise PowerCycleError(serial=serial, problem="its hub and port are not known")
        async with self._one_at_a_time:
            await self._run(serial, words)
        return " ".join(words)

    async def _run(self, serial: str, words: Sequence[str]) -> None:
        try:
            code, said = await output_of(*words, timeout_s=self.timeout_s)
        except TimeoutError as error:
            problem = f"{words[0]} did not end within {self.timeout_s:g} s"
            raise PowerCycleError(serial=serial, problem=problem) from error
        except OSError as error:
            raise PowerCycleError(serial=serial, problem=f"{words[0]}: {error.strerror}") from error
        if code:
            text = said[-SAID:] or "it said nothing"
            raise PowerCycleError(serial=serial, problem=f"{words[0]} ended with code {code}: {text}")
