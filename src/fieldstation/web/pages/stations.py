"""Stations: each one's state in a table, and one station with readings, log and config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nicegui import ui
from starlette.requests import Request

from fieldstation.core.security import Role
from fieldstation.web.acting import Acting
from fieldstation.web.frame import frame
from fieldstation.web.fresh import keep_fresh
from fieldstation.web.pages.station_config import ConfigPart
from fieldstation.web.readings import Readings
from fieldstation.web.rows import Rows
from fieldstation.web.sources import Sources
from fieldstation.web.station_view import StationView, moment

if TYPE_CHECKING:  # it needs the extra `station`, which a control may lack
    from fieldstation.web.stations import Stations

REFRESH_S = 1.0
NONE = """No stations' server is configured. Name it in the control's file: [web] nats = "nats://127.0.0.1:4222"."""
COLUMNS = (
    {"name": "station", "label": "Station", "kind": "code"},
    {"name": "state", "label": "State", "kind": "state"},
    {"name": "version", "label": "Version"},
    {"name": "revision", "label": "Config"},
    {"name": "queued", "label": "Queue"},
    {"name": "heard", "label": "Heard", "kind": "time"},
)
LOG = (
    {"name": "at", "label": "When", "kind": "time"},
    {"name": "level", "label": "Level", "kind": "state"},
    {"name": "text", "label": "What"},
)
LOG_LINES = 100


def station_row(view: StationView) -> dict[str, Any]:
    """Return a station as a row."""
    problems = (view.status or {}).get("problems") or ()
    return {
        "key": view.identity,
        "station": view.identity,
        "state": view.state,
        "state_note": "; ".join(str(problem) for problem in problems),
        "version": view.version,
        "revision": view.revision if view.config is not None else "",
        "queued": "" if view.queued is None else view.queued,
        "heard": moment(view.heard_at),
        "can": ["open"],
    }


def register(sources: Sources) -> None:
    """Serve the page at `/ui/stations`; with `?station=NAME` one of them."""

    @ui.page("/stations")
    async def stations(request: Request, station: str = "") -> None:
        acting = Acting(request)
        await acting.as_(Role.VIEWER, "looking at stations")
        with frame(sources, acting, "Stations"):
            if sources.stations is None:
                ui.label(sources.missing.get("stations", NONE)).classes("empty")
            elif station:
                page = _One(sources, sources.stations, acting, station)
                await keep_fresh(page.refresh, REFRESH_S)
            else:
                await _all(sources.stations, acting)


async def _all(source: Stations, acting: Acting) -> None:
    problem = ui.label().classes("problem")
    table = Rows(
        COLUMNS, label="Stations", nothing="No station has reported yet; its config needs an uplink `nats`.",
        actions=({"name": "open", "label": "Open"},), searchable=True,
        on_act=lambda _, key: ui.navigate.to(f"stations?station={quote(key)}"),
    )  # fmt: skip

    async def refresh() -> None:
        await acting.as_(Role.VIEWER, "looking at stations")
        problem.set_text(source.problem)
        table.show([station_row(view) for view in source.look()])

    await keep_fresh(refresh, REFRESH_S)


class _One:
    def __init__(self, sources: Sources, source: Stations, acting: Acting, identity: str) -> None:
        self.source = source
        self.acting = acting
        self.identity = identity
        ui.link("All stations", "stations")
        self.problem = ui.label().classes("problem")
        self.table = Rows(COLUMNS, label="This station", nothing="It has not reported yet.")
        ui.html("<h2>Readings</h2>", sanitize=False)
        self.readings = Readings()
        ui.html("<h2>Log</h2>", sanitize=False)
        self.log = Rows(LOG, label="Log", nothing="It has logged nothing lately.", searchable=True)
        self.config = ConfigPart(sources.control, source, acting, identity)

    async def refresh(self) -> None:
        await self.acting.as_(Role.VIEWER, "looking at stations")
        self.problem.set_text(self.source.problem)
        view = self.source.view(self.identity)
        self.table.show([{**station_row(view), "can": []}])
        self.readings.show(
            [
                {"name": name, "last": series.last, "at": series.at, "spark": series.spark()}
                for name, series in sorted(view.series.items())
            ]
        )
        lines = sorted(view.logs, key=lambda line: line["at"], reverse=True)[:LOG_LINES]
        self.log.show(
            [
                {
                    "key": f"{line['at']} {number}",
                    "at": moment(line["at"]),
                    "level": line["level"],
                    "text": line["subject"],
                    "text_note": line["body"],
                }
                for number, line in enumerate(lines)
            ]
        )
        self.config.show(view)
