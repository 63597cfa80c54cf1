"""Audit: who did what, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui
from starlette.requests import Request

from fieldstation.core.security import Role
from fieldstation.web.acting import Acting
from fieldstation.web.deed import attempt
from fieldstation.web.errors import WebError
from fieldstation.web.frame import frame
from fieldstation.web.fresh import keep_fresh
from fieldstation.web.rows import Rows
from fieldstation.web.sources import Sources

COLUMNS = (
    {"name": "at", "label": "When", "kind": "time"},
    {"name": "user", "label": "Who"},
    {"name": "client", "label": "Program"},
    {"name": "action", "label": "What", "kind": "brief"},
    {"name": "target", "label": "On", "kind": "code"},
    {"name": "detail", "label": "Detail", "kind": "long"},
)
PAGE = 200
REFRESH_S = 2.0


def as_rows(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return lines of the audit log as rows of a table."""
    return [
        {"key": str(e["id"]), **{c["name"]: e[c["name"]] for c in COLUMNS}, "target": e["target"].replace(",", ", ")}
        for e in entries
    ]


def register(sources: Sources) -> None:
    """Serve the page at `/ui/audit`."""

    @ui.page("/audit")
    async def audit(request: Request) -> None:
        acting = Acting(request)
        await acting.as_(Role.VIEWER, "reading the audit log")
        older: list[int] = []  # from where the page looks back; empty: the newest, live
        before: list[int] = []  # what is shown
        oldest = [0]
        with frame(sources, acting, "Audit"):
            table = Rows(COLUMNS, label="Audit log", nothing="Nothing has happened yet.", searchable=True)

            async def refresh() -> None:
                who = await acting.as_(Role.VIEWER, "reading the audit log")
                if older and before == older[-1:]:
                    return  # what is past does not change
                before[:] = older[-1:]
                entries = await sources.control.history(who, PAGE, older[-1] if older else None)
                table.show(as_rows(entries))
                earlier.set_enabled(len(entries) == PAGE)
                later.set_enabled(bool(older))
                oldest[0] = int(entries[-1]["id"]) if entries else 0

            async def back() -> None:
                older.append(oldest[0])
                await refresh()

            async def forth() -> None:
                older.pop()
                await refresh()

            async def check() -> None:
                await attempt(_check(sources, acting))

            with ui.element("div").classes("tools"):
                ui.button("Check the chain", on_click=check, color=None)
                later = ui.button("Newer", on_click=forth, color=None)
                earlier = ui.button("Older", on_click=back, color=None)
            await keep_fresh(refresh, REFRESH_S)


async def _check(sources: Sources, acting: Acting) -> str:
    found = await sources.control.verify_audit(await acting.as_(Role.OPERATOR, "checking the audit log"))
    if found.line is not None:
        raise WebError(f"Line {found.line} is bad: {found.problem}. {found.lines} lines before it are good.")
    return f"{found.lines} lines are as they were written. The last one's hash is {found.hash}."
