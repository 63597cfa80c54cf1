"""Tiles of the overview."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from nicegui import ui

from fieldstation.web.summary import Tile


class Tiles(ui.element, component="static/tiles.js"):
    """A grid of tiles."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[Tile] = []
        self._props["tiles"] = []

    def show(self, tiles: Sequence[Tile]) -> None:
        """Show these; nothing is sent when they are as before."""
        if list(tiles) != self._shown:
            self._shown = list(tiles)
            self._props["tiles"] = [asdict(tile) for tile in tiles]
            self.update()
