"""Readings of a station with their sparklines, drawn in the browser (`static/readings.js`)."""

from __future__ import annotations

from typing import Any

from nicegui import ui


class Readings(ui.element, component="static/readings.js"):
    """A card for each reading: {"name", "last", "at" (Unix seconds), "spark" (numbers)}."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[dict[str, Any]] = []
        self._props["readings"] = self._shown

    def show(self, readings: list[dict[str, Any]]) -> None:
        """Show these; nothing is sent when they are as before."""
        if readings != self._shown:
            self._shown = readings
            self._props["readings"] = readings
            self.update()
