"""What every page has: the bar with the ways to the others, who is logged in, light or dark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nicegui import ui

from fieldstation import __version__
from fieldstation.web.acting import Acting
from fieldstation.web.sources import Sources

PAGES = (
    ("./", "Overview"),
    ("devices", "Devices"),
    ("stations", "Stations"),
    ("streams", "Streams"),
    ("pipelines", "Pipelines"),
    ("approvals", "Approvals"),
    ("audit", "Audit"),
)

_HEAD = f"""<link rel="stylesheet" href="static/panel.css?{__version__}">
<script src="static/theme.js?{__version__}"></script>"""


@contextmanager
def frame(sources: Sources, acting: Acting, title: str) -> Iterator[None]:
    """Lay out a page; what is built inside stands in its middle."""
    ui.page_title(f"{title} · {sources.config.title}")
    ui.add_head_html(_HEAD)
    with ui.element("header").classes("bar"):
        ui.link("Skip to the page", "#page").classes("skip")
        with ui.element("div").classes("brand"):
            ui.element("span").classes("mark").props("aria-hidden=true")
            ui.label(sources.config.title)
        with ui.element("nav").props('aria-label="Pages"'):
            for target, name in PAGES:
                link = ui.link(name, target)
                if name == title:
                    link.props("aria-current=page")
        with ui.element("div").classes("who"):
            ui.label(f"{acting.shown.user} ({acting.shown.role.name.lower()})")
            ui.html('<button type="button" id="theme" class="plain">Light or dark</button>', sanitize=False)
            if acting.has_session:
                ui.html('<form method="post" action="logout"><button class="plain">Log out</button></form>',
                        sanitize=False)  # fmt: skip
    # The library's own layout is the page's landmark `main`.
    with ui.element("div").classes("page").props('id=page tabindex="-1"'):
        with ui.element("div").classes("title"):
            ui.html(f"<h1>{title}</h1>", sanitize=False)
        yield
