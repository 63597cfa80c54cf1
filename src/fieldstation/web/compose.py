"""Put the panel on a control server."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from starlette.staticfiles import StaticFiles

from fieldstation.core.config import load
from fieldstation.core.plugins import require
from fieldstation.core.service import Service
from fieldstation.fleet.wire.control_server import ControlService
from fieldstation.flow.desk import Desk
from fieldstation.web.attempts import Attempts
from fieldstation.web.config import PanelConfig
from fieldstation.web.doorway import Doorway
from fieldstation.web.live import Live
from fieldstation.web.login import Login
from fieldstation.web.sessions import Sessions
from fieldstation.web.sources import Sources


def panel_config(file: Path | None = None, **options: Any) -> PanelConfig:
    """Return the panel's settings from `[web]` of a file, the environment and overrides."""
    return load(PanelConfig, file=file, table="web", **options)


def mount(server: ControlService, desk: Desk | None = None, config: PanelConfig | None = None) -> list[Service]:
    """Mount the panel at `/ui` of a control that has not started; returns the services to run beside it.

    They start after the control and the approvals. Without a desk the page of approvals says that there are none.
    """
    require("nicegui", extra="web", feature="The panel")
    config = config or panel_config()
    control = server.control
    sessions = Sessions(server.store, control.whose_hash, hours=config.session_hours)
    server.asgi.session = sessions.whose
    server.asgi.late.add("/ui/")
    Login(control, sessions, Attempts(config.login_failures), config.title).mount(server.app)
    folder = str(files("fieldstation.web") / "static")
    server.app.mount("/ui/static", StaticFiles(directory=folder), name="panel files")
    sources = Sources(control, desk, config)
    server.app.router.routes.append(WebSocketRoute("/ui/live/{name}", Live(sources.streams).serve))

    def build() -> FastAPI:
        from fieldstation.web import panel  # the library is imported when somebody looks

        return panel.build(sources)

    doorway = Doorway(build, sessions.prepare)
    server.app.mount("/ui", doorway, name="panel")
    server.app.state.panel = True
    return [*sources.services(), doorway]
