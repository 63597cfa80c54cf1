"""The live pictures of one frame server, drawn in the browser (`static/live.js`)."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui


class Canvases(ui.element, component="static/live.js"):
    """Opens `live/NAME` by itself; nothing of it goes through the page's own socket."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._props["name"] = name
        self._props["path"] = f"live/{quote(name, safe='')}"
