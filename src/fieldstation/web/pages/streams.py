"""Streams: what the cameras see now."""

from __future__ import annotations

from nicegui import ui
from starlette.requests import Request

from fieldstation.core.security import Role
from fieldstation.web.acting import Acting
from fieldstation.web.canvases import Canvases
from fieldstation.web.frame import frame
from fieldstation.web.sources import Sources

NONE = """No frame server is configured. Name one in the control's file: [web.streams] camera = "127.0.0.1:50051"."""


def register(sources: Sources) -> None:
    """Serve the page at `/ui/streams`."""

    @ui.page("/streams")
    async def streams(request: Request) -> None:
        acting = Acting(request)
        await acting.as_(Role.VIEWER, "looking at frames")
        with frame(sources, acting, "Streams"):
            if not sources.streams:
                ui.label(sources.missing.get("streams", NONE)).classes("empty")
            for name in sources.streams:
                Canvases(name)
