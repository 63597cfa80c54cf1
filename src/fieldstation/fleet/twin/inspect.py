"""What a bitstream holds, for a person: cells, clocks, pins, loops, and the waveform on the counted pin."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from fieldstation.core.errors import FieldstationError
from fieldstation.core.plugins import require
from fieldstation.fleet.twin.evaluate import UndecodableError, find_tools, read, run
from fieldstation.fleet.twin.logic import cone, feedback
from fieldstation.fleet.twin.model import Conditions

WAVEFORM_CHANGES = 60  # of the pin: thirty periods are as many as an eye can follow


class NoBitstreamError(FieldstationError):
    """{path} is no bitstream of this chip family: {problem}. Pack an .asc file with icepack first."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A design in numbers. `changes_s`: the first times in seconds at which the counted pin changes, low at 0."""

    device: str
    luts: int
    carries: int
    flip_flops: int
    block_rams: int
    clocks: int
    pins_in: tuple[str, ...]
    pins_out: tuple[str, ...]
    loops: tuple[str, ...]
    unsupported: tuple[str, ...]
    pulses: int | None
    period_cycles: int
    reason: str
    detail: str
    changes_s: tuple[float, ...]


def inspect(path: Path) -> Inspection:
    """Decode the file and run it for the counting window."""
    conditions = Conditions()
    find_tools()
    with tempfile.TemporaryDirectory(prefix="twin-") as name:
        folder = Path(name)
        (folder / "design.bin").write_bytes(path.read_bytes())
        try:
            netlist = read(folder, conditions)
        except UndecodableError as error:
            raise NoBitstreamError(path=path, problem=error) from error
        logic = cone(netlist)
        window = round(conditions.clock_hz * conditions.window_s)
        reason, detail = logic.unknown or ("", "")
        counted = None if reason else run(logic, folder, [window])
        changes = None if reason else run(logic, folder, [window, WAVEFORM_CHANGES])
        if not reason and counted is None:
            reason, detail = "unstable", "the logic never comes to rest after a clock edge"
    pulses, period = counted or (None, 0)
    return Inspection(
        device=f"iCE40 {netlist.device}",
        luts=len({lut.place for lut in netlist.luts}),
        carries=len(netlist.carries),
        flip_flops=len(netlist.flip_flops),
        block_rams=len(netlist.rams),
        clocks=len({part.clock for part in netlist.clocked} - {0, 1}),
        pins_in=tuple(map(str, netlist.pins_in)),
        pins_out=tuple(map(str, netlist.pins_out)),
        loops=tuple("({}, {}) cell {}".format(*place) for place in feedback(netlist)),
        unsupported=tuple(f"{found.reason}: {found.detail}" for found in netlist.unsupported),
        pulses=pulses,
        period_cycles=period,
        reason=reason,
        detail=detail,
        changes_s=tuple(cycle / conditions.clock_hz for cycle in changes or ()),
    )


def draw(found: Inspection, path: Path) -> None:
    """Draw the counted pin's waveform to a PNG file."""
    figure_module = require("matplotlib.figure", extra="plots", feature="Drawing the waveform")
    figure = figure_module.Figure(figsize=(10, 2.4), layout="constrained")
    axes = figure.subplots()
    times = [0.0, *found.changes_s]
    levels = [n % 2 for n in range(len(times))]
    scale, unit = next(
        (s, u) for s, u in ((1, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns")) if times[-1] * s >= 1 or u == "ns"
    )
    axes.step([t * scale for t in times], levels, where="post", color="#1f6feb")
    axes.set(yticks=[0, 1], yticklabels=["low", "high"], ylim=(-0.2, 1.2), xlabel=f"time after configuration ({unit})")
    heading = found.detail if found.pulses is None else f"{found.pulses:,} pulses in the counting window"
    axes.set_title(f"Counted pin: {heading}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
