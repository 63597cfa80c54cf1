"""A pipeline's graph, drawn in the browser (`static/graph.js`)."""

from __future__ import annotations

from typing import Any

from nicegui import ui


class Graph(ui.element, component="static/graph.js"):
    """Boxes and arrows as `drawing.draw` places them; `label` says of what."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._shown: dict[str, Any] = {}
        self._props["label"] = label
        self._props["drawn"] = {"width": 1, "height": 1, "boxes": [], "arrows": []}

    def show(self, drawn: dict[str, Any]) -> None:
        """Show this; nothing is sent when it is as before."""
        if drawn != self._shown:
            self._shown = drawn
            self._props["drawn"] = drawn
            self.update()
