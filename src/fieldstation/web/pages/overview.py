"""Overview: how everything is, in one look."""

from __future__ import annotations

import re

from nicegui import ui
from starlette.requests import Request

from fieldstation.core.security import Role
from fieldstation.web.acting import Acting
from fieldstation.web.frame import frame
from fieldstation.web.fresh import keep_fresh
from fieldstation.web.pages.audit import COLUMNS, as_rows
from fieldstation.web.rows import Rows
from fieldstation.web.sources import Sources
from fieldstation.web.summary import summary
from fieldstation.web.tiles import Tiles

REFRESH_S = 1.0
_RECENT = 8
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # the audit page shows it whole


def register(sources: Sources) -> None:
    """Serve the page at `/ui/`."""

    @ui.page("/")
    async def overview(request: Request) -> None:
        acting = Acting(request)
        await acting.as_(Role.VIEWER, "looking at the panel")
        with frame(sources, acting, "Overview"):
            tiles = Tiles()
            ui.html("<h2>What happened last</h2>", sanitize=False)
            recent = Rows(COLUMNS, label="What happened last", nothing="Nothing has happened yet.")

            async def refresh() -> None:
                who = await acting.as_(Role.VIEWER, "looking at the panel")
                sources.control.must_lead()
                tiles.show(await summary(sources))
                rows = as_rows(await sources.control.history(who, _RECENT))
                recent.show([{**row, "detail": _DIGEST.sub(r"\1…", row["detail"])} for row in rows])

            await keep_fresh(refresh, REFRESH_S)
