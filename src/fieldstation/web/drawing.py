"""Where the boxes and arrows of a pipeline's graph stand. Pure; the browser draws them (`static/graph.js`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fieldstation.pipeline.status import ProcessStatus, levels

WIDTH, HEIGHT = 168, 74
GAP_X, GAP_Y = 64, 22


def draw(rows: Sequence[ProcessStatus]) -> dict[str, Any]:
    """Return {"width", "height", "boxes", "arrows"} of one workflow: triggers left, exits right.

    An arrow that goes back (an exit's answer to its trigger) runs below the boxes.
    """
    depth = levels({row.process: [s.partition(".")[0] for s in row.hears] for row in rows if row.type != "trigger"})
    depth |= {row.process: 0 for row in rows if row.type == "trigger"}
    columns: dict[int, list[ProcessStatus]] = {}
    for row in rows:
        columns.setdefault(depth[row.process], []).append(row)
    tallest = max((len(column) for column in columns.values()), default=0)
    height = tallest * (HEIGHT + GAP_Y) + GAP_Y
    boxes: dict[str, dict[str, Any]] = {}
    for number, level in enumerate(sorted(columns)):
        column = columns[level]
        top = (height - len(column) * (HEIGHT + GAP_Y) + GAP_Y) // 2
        for place, row in enumerate(column):
            boxes[row.process] = {
                "x": number * (WIDTH + GAP_X) + 6,
                "y": top + place * (HEIGHT + GAP_Y),
                "width": WIDTH,
                "height": HEIGHT,
                "name": row.process,
                "type": row.type,
                "replicas": row.replicas,
                "rate": row.rate,
                "lag": row.lag,
                "hears": is_counted(row),
                "dead": row.dead_letters,
                "redelivered": row.redelivered,
            }
    arrows = [
        arrow for row in rows for heard in row.hears if (arrow := _arrow(boxes, heard, row.process, height)) is not None
    ]
    back = any(arrow["back"] for arrow in arrows)
    width = len(columns) * (WIDTH + GAP_X) - GAP_X + 12
    return {"width": width, "height": height + (GAP_Y if back else 0), "boxes": list(boxes.values()), "arrows": arrows}


def is_counted(row: ProcessStatus) -> bool:
    """Whether anything is counted of it: the server counts what a process takes, and a source takes from outside."""
    return row.type != "trigger" or bool(row.hears)


def _arrow(boxes: dict[str, dict[str, Any]], heard: str, to: str, height: int) -> dict[str, Any] | None:
    sender, _, channel = heard.partition(".")
    if sender not in boxes:
        return None
    a, b = boxes[sender], boxes[to]
    x1, y1, x2, y2 = a["x"] + WIDTH, a["y"] + HEIGHT // 2, b["x"], b["y"] + HEIGHT // 2
    if x2 > a["x"]:
        middle = (x1 + x2) // 2
        path = f"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2 - 5} {y2}"
        return {"path": path, "text": channel, "x": middle, "y": (y1 + y2) // 2 - 5, "back": False}
    x1, y1, x2, y2, low = a["x"] + WIDTH // 2, a["y"] + HEIGHT, b["x"] + WIDTH // 2, b["y"] + HEIGHT, height + 6
    path = f"M{x1} {y1} C{x1} {low} {x1} {low} {(x1 + x2) // 2} {low} S{x2} {low} {x2} {y2 + 5}"
    return {"path": path, "text": channel, "x": (x1 + x2) // 2, "y": low - 5, "back": True}
