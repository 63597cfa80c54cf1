"""The twin: unseen and seen bitstreams, 48 million cycles without a period, and whether a population uses all cores.

The limit for an unseen bitstream is what Verilator takes to build the same kind of divider, measured in the same run.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rows import Row, main

from fieldstation.fleet.twin.cache import AnswerCache
from fieldstation.fleet.twin.evaluate import evaluate
from fieldstation.fleet.twin.logic import Cone, cone
from fieldstation.fleet.twin.model import Conditions
from fieldstation.fleet.twin.netlist import FlipFlop, Lut, Netlist, load_icebox
from fieldstation.fleet.twin.service import Limits, Twin
from fieldstation.fleet.twin.source import program

ROOT = Path(__file__).parents[1]
DIVIDER = gzip.decompress((ROOT / "tests/data/twin/divider.bin.gz").read_bytes())
POPULATION = 50
VERILOG = """module top(input clk, output reg out = 0);
reg [12:0] c = 0;
always @(posedge clk) if (c == 4999) begin c <= 0; out <= !out; end else c <= c + 1;
endmodule
"""
HARNESS = """#include "Vtop.h"
#include "verilated.h"
#include <cstdio>
int main() {
    Vtop top; long edges = 0; int last = 0;
    for (long t = 0; t < 48000000; t++) {
        top.clk = 1; top.eval(); edges += top.out && !last; last = top.out; top.clk = 0; top.eval();
    }
    std::printf("%ld\\n", edges);
}
"""


def cpu(work: Callable[[], object]) -> float:
    """Seconds of one core that `work` and its children take: what else the machine does counts little."""

    def used() -> float:
        both = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(usage.ru_utime + usage.ru_stime for usage in both)

    before = used()
    work()
    return used() - before


def unseen(folder: Path) -> float:
    """Decode, compile and run the divider."""
    scratch = Path(tempfile.mkdtemp(dir=folder))
    (scratch / "design.bin").write_bytes(DIVIDER)

    def work() -> None:
        assert evaluate(scratch, Conditions()).pulses == 4800

    return cpu(work)


def verilator(folder: Path) -> tuple[float, float]:
    """Build the divider's source with Verilator and run it; seconds of each."""
    scratch = Path(tempfile.mkdtemp(dir=folder))
    (scratch / "top.v").write_text(VERILOG)
    (scratch / "main.cpp").write_text(HARNESS)
    command = ["verilator", "--cc", "--exe", "--build", "-O3", "-Wno-fatal", "--top-module", "top", "top.v", "main.cpp"]

    def build() -> None:
        subprocess.run(command, cwd=scratch, check=True, capture_output=True)

    def run() -> None:
        done = subprocess.run([scratch / "obj_dir" / "Vtop"], capture_output=True, text=True, check=True)
        assert done.stdout == "4800\n", done.stdout

    return cpu(build), cpu(run)


def lfsr32() -> Cone:
    """A shift register with feedback whose period, 4,294,967,295 cycles, is longer than the window."""
    design = Netlist("5k", 200, 2, 17)
    for bit in range(32):
        data = 9 + bit if bit else 100
        design.flip_flops.append(
            FlipFlop(clock=2, negative_edge=False, enable=1, reset=0, reset_async=False, reset_value=0,
                     data=data, output=10 + bit, place=(1, 1, bit))
        )  # fmt: skip
    parity = sum((~bin(n).count("1") & 1) << n for n in range(16))  # inverted, so that it leaves the state of all zeros
    design.luts.append(Lut((41, 31, 11, 10), 100, parity, (1, 1, 0)))
    return cone(design)


def window(folder: Path) -> float:
    """Run 48 million cycles of a design that never repeats."""
    (folder / "lfsr.c").write_text(program(lfsr32()))
    subprocess.run(["gcc", "-O1", "-o", folder / "lfsr", folder / "lfsr.c"], check=True)

    def work() -> None:
        done = subprocess.run([folder / "lfsr", "48000000"], capture_output=True, text=True, check=True)
        assert done.stdout.endswith(" 0\n"), "it has a period"

    return cpu(work)


async def seen(folder: Path) -> float:
    """Median seconds of a cached answer."""
    async with Twin(AnswerCache(folder / "seen"), limits=Limits(processes=1)) as twin:
        await twin.answer(DIVIDER)
        took = []
        for _ in range(50):
            started = time.perf_counter()
            await twin.answer(DIVIDER)
            took.append(time.perf_counter() - started)
    return statistics.median(took)


async def population(folder: Path, processes: int) -> float:
    """Wall-clock seconds for unseen bitstreams, alike but for their comment, which iceunpack skips."""
    async with Twin(AnswerCache(folder / f"population-{processes}"), limits=Limits(processes=processes)) as twin:
        variants = [_variant(n) for n in range(POPULATION)]
        started = time.perf_counter()
        answers = await asyncio.gather(*(twin.answer(one) for one in variants))
        assert {answer.pulses for answer in answers} == {4800}, {answer.reason for answer in answers}
    return time.perf_counter() - started


def _variant(number: int) -> bytes:
    # The stream begins FF 00 <comment> 00 FF; these are as good as unseen to the cache.
    return b"\xff\x00" + f"variant {number}".encode() + DIVIDER[2:]


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-twin-") as name:
        folder = Path(name)
        load_icebox()
        have = shutil.which("verilator") is not None
        rounds = [(unseen(folder), *(verilator(folder) if have else (0.0, 0.0))) for _ in range(3)]
        ours, build, run = (statistics.median(column) for column in zip(*rounds, strict=True))
        limit = f"{build:.1f} s build + {run:.1f} s run with Verilator" if have else "verilator is not installed"
        cores = os.cpu_count() or 1
        one, all_cores = asyncio.run(population(folder, 1)), asyncio.run(population(folder, cores))
        return [
            Row("unseen bitstream, one core, start to end", f"{ours:.2f} s CPU", limit,
                ours / (build + run) if have else None, "at most 8 s, aim 1 s"),
            Row("seen bitstream, no transport", f"{asyncio.run(seen(folder)) * 1e3:.2f} ms", "", None, "at most 50 ms"),
            Row("48 M cycles of a 32-bit LFSR (no period)", f"{window(folder):.2f} s CPU", "", None, "at most 2.5 s"),
            Row(f"population of {POPULATION} unseen on {cores} cores", f"{all_cores:.1f} s",
                f"{one:.1f} s on one core", all_cores / one, "uses all cores"),
        ]  # fmt: skip


if __name__ == "__main__":
    main("twin", measure)
