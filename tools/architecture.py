#!/usr/bin/env python3
"""Draw docs/images/architecture.svg from the import floors in pyproject.toml and the imports in the code.

With --check, say whether the picture is out of date instead.
"""

import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "images" / "architecture.svg"

WIDTH, MARGIN, GAP = 1000, 20, 10
SAYS = {
    "testing": "public helpers for tests; no product code imports it",
    "cli": "one command; a group is imported when it is called",
    "site": "the site file, its roles under one supervisor, bridges, the demonstration",
    "web": "the panel",
    "flow": "decide: approvals, commands on workers, Prefect",
    "fleet": "reserve devices",
    "station": "run unattended",
    "stream": "frames, live",
    "pipeline": "nodes on JetStream",
    "kit": "small tools, each usable alone",
    "core": "errors, config, log, store, security, service: knows no domain word",
}
COLOURS = {
    "testing": "#8a8f98", "cli": "#5b6bd6", "site": "#8a4fd0", "web": "#b8479f", "flow": "#c2514a", "fleet": "#b7791f",
    "station": "#4d8b31", "stream": "#1f8a70", "pipeline": "#1c7fae", "kit": "#4a6fa5", "core": "#606874",
}  # fmt: skip
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1c2530 } .name { font-weight: 600; font-size: 15px }
.small { font-size: 12px; fill: #55606c } .box { fill: #fff; stroke-width: 1.6 } .page { fill: #f4f6f8 }
.chip { fill-opacity: .16 } .uses { font-size: 11px }
@media (prefers-color-scheme: dark) {
  text { fill: #e6eaee } .small { fill: #a5b0bb } .box { fill: #1d242c } .page { fill: #141a20 }
  .chip { fill-opacity: .38 }
}
"""


def floors() -> list[list[str]]:
    """Return the floors from the top, as the linter is told them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["name"] == "The floors of the house")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def imports() -> dict[str, list[str]]:
    """Return package -> packages that any of its modules imports, as the code stands."""
    graph = grimp.build_graph("fieldstation", cache_dir=None)
    order = [name for floor in floors() for name in floor]
    found: dict[str, set[str]] = {name: set() for name in order}
    for module in graph.modules:
        parts = module.split(".")
        if len(parts) > 1 and parts[1] in found:
            for other in graph.find_modules_directly_imported_by(module):
                target = [*other.split("."), ""][1]
                if target in found and target != parts[1]:
                    found[parts[1]].add(target)
    return {name: sorted(found[name], key=order.index) for name in order}


def chips(names: list[str], x: float, y: float, right: float) -> tuple[list[str], float]:
    """Draw what a package imports, wrapped at `right`; returns the lines and where the last row ends."""
    drawn, at, row = [], x, y
    for name in names:
        width = 12 + 6.6 * len(name)
        if at + width > right:
            at, row = x, row + 24
        place = f'x="{at:.0f}" y="{row:.0f}" width="{width:.0f}" height="19" rx="9"'
        drawn.append(
            f'<rect class="chip" {place} fill="{COLOURS[name]}"/>'
            f'<text class="uses" x="{at + width / 2:.0f}" y="{row + 13.5:.1f}" text-anchor="middle">{name}</text>'
        )
        at += width + 5
    return drawn, row + 19


def draw() -> str:
    """Return the picture: a floor for each layer, in each box what it imports."""
    uses = imports()
    body: list[str] = []
    y = float(MARGIN)
    for floor in floors():
        width = (WIDTH - 2 * MARGIN - GAP * (len(floor) - 1)) / len(floor)
        narrow = len(floor) > 1
        parts, bottom = [], y
        for number, name in enumerate(floor):
            x = MARGIN + number * (width + GAP)
            words = [f'<text class="name" x="{x + 14:.0f}" y="{y + 23:.0f}">{name}</text>']
            offset = (14, 43) if narrow else (96, 23)
            words.append(f'<text class="small" x="{x + offset[0]:.0f}" y="{y + offset[1]:.0f}">{SAYS[name]}</text>')
            drawn, end = chips(uses[name], x + 14, y + (52 if narrow else 34), x + width - 10)
            parts.append((x, name, words + drawn))
            bottom = max(bottom, end if uses[name] else y + 26)
        height = bottom - y + 11
        for x, name, words in parts:
            box = f'x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="7"'
            body.append(f'<rect class="box" {box} stroke="{COLOURS[name]}"/>')
            body += words
        y += height + GAP
    total = y - GAP + MARGIN
    title = "Fieldstation's floors: imports only run down; the chips are what a package imports"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total:.0f}" role="img" aria-label="{title}">'
    page = f'<rect class="page" width="{WIDTH}" height="{total:.0f}" rx="10"/>'
    return "\n".join([head, f"<title>{title}</title><style>{STYLE}</style>", page, *body, "</svg>", ""])


def main() -> None:
    text = draw()
    old = TARGET.read_text() if TARGET.exists() else ""
    if "--check" in sys.argv[1:]:
        if old != text:
            print("out of date; run `make reference`: docs/images/architecture.svg")
        sys.exit(old != text)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
