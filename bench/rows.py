"""What a measurement gives, how two things are measured fairly, and how the figures reach RESULTS.md.

`bench/<capability>.py` has `measure() -> list[Row]` and ends with `if __name__ == "__main__": main("<capability>",
measure)`; `make bench` runs them all. Machines are noisy: look at the ratios.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `ours` and `limit` are numbers with their units; `promise` says what was asked for."""

    what: str
    ours: str
    limit: str
    ratio: float | None = None
    promise: str = ""


def alternate(ours: Callable[[], float], limit: Callable[[], float], rounds: int = 5) -> tuple[float, float, float]:
    """Measure both in turn, `rounds` times; returns the medians of each and the median of the ratios ours / limit.

    In turn, because what else the machine does then hits both.
    """
    pairs = [(ours(), limit()) for _ in range(rounds)]
    ratios = [mine / theirs for mine, theirs in pairs]
    return statistics.median(m for m, _ in pairs), statistics.median(t for _, t in pairs), statistics.median(ratios)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | ours | limit, measured in the same run | ratio | promised |", "|---|---|---|---|---|"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(f"| {row.what} | {row.ours} | {row.limit} | {ratio} | {row.promise} |")
    return "\n".join(lines)


def machine() -> str:
    """One sentence on where this was measured."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}; "
        f"load before the run {os.getloadavg()[0]:.1f}."
    )


def write(section: str, rows: list[Row]) -> None:
    """Replace a section of RESULTS.md, or add it; the others stay as they are."""
    text = (
        RESULTS.read_text() if RESULTS.exists() else "# Results\n\nWritten by `make bench`; ratios are what counts.\n"
    )
    new = f"## {section}\n\n{machine()}\n\n{table(rows)}\n"
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [part.rstrip() + "\n" for part in parts if not part.startswith(f"## {section}\n")]
    head, *sections = kept
    RESULTS.write_text("\n".join([head, *sorted([*sections, new])]))


def main(section: str, measure: Callable[[], list[Row]]) -> None:
    """Run one bench alone: print its table, and write its section when --write is given."""
    rows = measure()
    print(table(rows))
    if "--write" in sys.argv[1:]:
        write(section, rows)
