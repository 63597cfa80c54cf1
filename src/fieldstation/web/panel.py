"""The panel's app: every page, on NiceGUI."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from nicegui import ui

from fieldstation.web.errors import SecondPanelError
from fieldstation.web.pages import approvals, audit, devices, overview, pipelines, stations, streams
from fieldstation.web.sources import Sources

_built: list[Sources] = []


def build(sources: Sources) -> FastAPI:
    """Return the app; its lifespan is the panel's. NiceGUI is one for each process, so this works once."""
    if _built:
        raise SecondPanelError()
    _built.append(sources)
    for page in (overview, devices, stations, streams, pipelines, approvals, audit):
        page.register(sources)
    app = FastAPI(openapi_url=None)
    ui.run_with(
        app,
        title=sources.config.title,
        favicon=Path(__file__).parent / "static" / "icon.svg",
        dark=None,
        language="en-US",
        tailwind=False,
        reconnect_timeout=20.0,
        show_welcome_message=False,
    )
    return app
