"""One bitstream, start to end: unpack, decode, generate, compile, run. Blocking; runs in a child process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from fieldstation.fleet.twin.logic import Cone, cone
from fieldstation.fleet.twin.model import Answer, Conditions, unknown
from fieldstation.fleet.twin.netlist import Netlist, TwinToolsError, decode, icebox_folder
from fieldstation.fleet.twin.source import program

UNSTABLE = 3  # exit status of the generated program when logic never comes to rest
PACKAGES = {"iceunpack": "fpga-icestorm", "gcc": "gcc libc6-dev"}


class UndecodableError(Exception):
    """The bytes are not a bitstream of this chip family; the text says what iceunpack or icebox made of them."""


def find_tools() -> None:
    """Raise one sentence when something the twin needs is not on this machine."""
    for tool, package in PACKAGES.items():
        if shutil.which(tool) is None:
            raise TwinToolsError(tool=tool, package=package)
    icebox_folder()


def read(folder: Path, conditions: Conditions) -> Netlist:
    """Unpack and decode `design.bin` in `folder`; raises UndecodableError for what is no bitstream."""
    packed, ascii_file = folder / "design.bin", folder / "design.asc"
    done = subprocess.run(["iceunpack", packed, ascii_file], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise UndecodableError(f"iceunpack says: {said[-1].rstrip('.') if said else done.returncode}")
    try:
        return decode(ascii_file, conditions.clock_pin, conditions.counted_pin)
    except Exception as error:  # icebox asserts and indexes freely; whatever it raises, the bytes are at fault
        raise UndecodableError(f"icebox: {type(error).__name__} {error}") from error


def evaluate(folder: Path, conditions: Conditions, sampled: bool = False) -> Answer:
    """Count the pin's edges, or sample its level, for `design.bin` in the scratch `folder`.

    Never raises for anything that is in the bitstream.
    """
    try:
        logic = cone(read(folder, conditions))
    except UndecodableError as error:
        return unknown("undecodable", str(error))
    if logic.unknown is not None:
        return unknown(*logic.unknown)
    arguments = _sampling(conditions) if sampled else [round(conditions.clock_hz * conditions.window_s)]
    numbers = run(logic, folder, arguments)
    if numbers is None:
        return unknown("unstable", "the logic never comes to rest after a clock edge")
    return Answer(None, samples=numbers) if sampled else Answer(numbers[0], period=numbers[1])


def run(logic: Cone, folder: Path, arguments: list[int]) -> tuple[int, ...] | None:
    """Compile a cone in `folder` and run it with `arguments` (frame.c tells which); None when it never rests."""
    done = subprocess.run([_compile(logic, folder), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode == UNSTABLE:
        return None
    done.check_returncode()
    return tuple(int(word) for word in done.stdout.split())


def _compile(logic: Cone, folder: Path) -> Path:
    source, binary = folder / "design.c", folder / "design"
    source.write_text(program(logic))
    subprocess.run(["gcc", "-O1", "-o", binary, source], check=True, capture_output=True)
    return binary


def _sampling(conditions: Conditions) -> list[int]:
    """Return the program's arguments in clock cycles: settle, between samples, number of samples, RC constant."""
    hertz = conditions.clock_hz
    between = round(hertz * conditions.sample_interval_s)
    return [round(hertz * conditions.settle_s), between, conditions.samples, max(1, round(hertz * conditions.rc_s))]
