"""The report of the demonstration: `python -m fieldstation.site.demo.report FOLDER`, what the approval is about."""

from __future__ import annotations

import base64
import html
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fieldstation.core.plugins import require
from fieldstation.site.bridges.reading import rows
from fieldstation.site.demo.table import joined

COLUMNS = {
    "time": "time (UTC)",
    "serial": "board",
    "file": "circuit",
    "pulses": "pulses",
    "station_temperature": "°C",
    "station_humidity": "humidity %",
    "station_pressure": "hPa",
    "frames_product": "product",
    "frames_mean": "frame mean",
    "frames_max": "frame max",
}

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { width: 100%; height: auto; background: white; border-radius: 6px }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left } th { background: var(--soft) }
.ok { color: #2a8a4a } .bad { color: #c33; font-weight: bold } small { opacity: .7 }
"""


def draw(path: Path, archive: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Draw pulses by circuit and board, the weather, and the frames' means, the evaluations marked in both."""
    figures = require("matplotlib.figure", extra="plots", feature="The report")  # no pyplot: it asks for a window
    figure = figures.Figure(figsize=(10, 9), layout="constrained")
    bars, air, sky = figure.subplots(3, 1)
    _draw_pulses(bars, table)
    weather = list(rows(archive, "station"))
    frames = list(rows(archive, "frames"))
    start = min([row[2] for row in [*weather, *frames]], default=0.0)
    moments = [row["time"] - start for row in table]
    air.plot([t - start for _, _, t, _ in weather], [v["temperature"] for *_, v in weather], "-o", ms=3, color="C3")
    air.set(title="Weather station", ylabel="°C")
    for product in sorted({v["product"] for *_, v in frames}):
        mine = [(t - start, v["mean"]) for _, _, t, v in frames if v["product"] == product]
        sky.plot(*zip(*mine, strict=True), ".-", ms=3, lw=0.8, label=product)
    sky.set(title="Telescope: mean of each frame", ylabel="counts", xlabel="seconds since the first reading")
    if frames:
        sky.legend(loc="center right")
    sky.sharex(air)
    for axes in (air, sky):
        axes.grid(alpha=0.3)
        if moments:
            axes.axvspan(min(moments), max(moments) + 0.05, color="C0", alpha=0.2, label="evaluations")
            axes.annotate(
                "evaluations ", (min(moments), axes.get_ylim()[1]), va="top", ha="right", fontsize=8, color="C0"
            )
    figure.savefig(path, dpi=110)


def _draw_pulses(axes: Any, table: Sequence[Mapping[str, Any]]) -> None:
    boards = sorted({row["serial"] for row in table})
    circuits = sorted({row["file"] for row in table})
    latest = {(row["serial"], row["file"]): row.get("pulses", 0) for row in table}
    for number, board in enumerate(boards):
        heights = [latest.get((board, circuit), 0) / 1e6 for circuit in circuits]
        where = [index + (number - (len(boards) - 1) / 2) * 0.38 for index in range(len(circuits))]
        axes.bar(where, heights, width=0.36, label=f"board {board}")
    axes.set_xticks(range(len(circuits)), [circuit.removesuffix(".bin") for circuit in circuits])
    axes.set(title="Pulses counted in one second", ylabel="millions")
    axes.grid(alpha=0.3, axis="y")
    axes.legend()


def summary(table: Sequence[Mapping[str, Any]], archive: Path) -> str:
    """Say in a sentence what came together."""
    boards, circuits = ({row[name] for row in table} for name in ("serial", "file"))
    weather, frames = (sum(1 for _ in rows(archive, source)) for source in ("station", "frames"))
    return (
        f"{len(table)} evaluations of {len(circuits)} circuits on {len(boards)} boards, joined with {weather} readings"
        f" of a weather station and {frames} frames of a telescope."
    )


def page(table: Sequence[Mapping[str, Any]], checks: Sequence[Mapping[str, Any]], image: bytes, text: str) -> str:
    """Return the report as one HTML file that needs nothing else."""
    picture = base64.b64encode(image).decode()
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Fieldstation: the demonstration</title><style>{_STYLE}</style>",
        f"<h1>The demonstration</h1><small>{now}; published after somebody said yes</small>",
        f"<p>{html.escape(text)}</p>",
        f"<p><img alt='Pulses by circuit, weather, frames' src='data:image/png;base64,{picture}'></p>",
    ]
    if checks:
        parts.append("<h2>Counts</h2><div class=wide><table><tr><th>what<th>equation<th>holds</tr>")
        for check in checks:
            word, mark = ("ok", "yes") if check["ok"] else ("bad", "no")
            cells = f"<td>{html.escape(check['name'])}<td>{html.escape(check['text'])}<td class={word}>{mark}"
            parts.append(f"<tr>{cells}</tr>")
        parts.append("</table></div>")
    parts.append("<h2>The joined table</h2><div class=wide><table><tr>")
    parts += [f"<th>{html.escape(title)}" for title in COLUMNS.values()]
    for row in table[-200:]:
        parts.append("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in _cells(row)) + "</tr>")
    return "\n".join([*parts, "</table></div></html>"])


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    for name in COLUMNS:
        value = row.get(name, "")
        if name == "time":
            yield datetime.fromtimestamp(float(value), UTC).strftime("%H:%M:%S.%f")[:-3]
        elif isinstance(value, float):
            yield f"{value:,.0f}" if name == "pulses" else f"{value:.2f}"
        else:
            yield str(value)


def main(folder: Path) -> None:
    """Write table, picture and page into `FOLDER/report`, and print where they are."""
    target = folder / "report"
    target.mkdir(exist_ok=True)
    archive = folder / "table" / "archive.sqlite3"
    # One after the other, each in its own process: Parquet and pictures need sixty megabytes, and give none back.
    command = [sys.executable, "-m", "fieldstation.site.demo.table", str(archive), str(target / "joined.parquet")]
    subprocess.run(command, check=True)
    table = joined(archive)
    draw(target / "report.png", archive, table)
    known = target / "checks.json"
    checks = json.loads(known.read_text()) if known.exists() else []
    image = (target / "report.png").read_bytes()
    (target / "report.html").write_text(page(table, checks, image, summary(table, archive)))
    sys.stdout.write(f"{target / 'report.html'}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
