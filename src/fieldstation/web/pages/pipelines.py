"""Pipelines: the graph with its numbers, and the dead letters with what can be done about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nicegui import ui
from starlette.requests import Request

from fieldstation.core.security import Role
from fieldstation.fleet.control import Control
from fieldstation.fleet.store.ledger import Entry
from fieldstation.web.acting import Acting
from fieldstation.web.deed import attempt, shown
from fieldstation.web.errors import WebError
from fieldstation.web.frame import frame
from fieldstation.web.fresh import keep_fresh
from fieldstation.web.graph import Graph
from fieldstation.web.rows import Rows
from fieldstation.web.sources import Sources

if TYPE_CHECKING:  # it needs the extra `pipeline`, which a control may lack
    from fieldstation.web.pipelines import PipelineWatch

REFRESH_S = 1.0
NONE = """No pipeline is configured. Name one in the control's file: [web.pipelines.NAME] manifest = "krt.yaml"."""
PROCESSES = (
    {"name": "process", "label": "Process", "kind": "code"},
    {"name": "type", "label": "Type"},
    {"name": "replicas", "label": "Running"},
    {"name": "rate", "label": "Messages/s"},
    {"name": "lag", "label": "Lag"},
    {"name": "in_work", "label": "In work"},
    {"name": "redelivered", "label": "Redelivered"},
    {"name": "dead_letters", "label": "Dead letters"},
    {"name": "restarts", "label": "Restarts"},
)
LETTERS = (
    {"name": "at", "label": "When", "kind": "time"},
    {"name": "process", "label": "Process", "kind": "code"},
    {"name": "error", "label": "Why", "kind": "long"},
    {"name": "request", "label": "Request", "kind": "code"},
    {"name": "deliveries", "label": "Tried"},
)
ACTIONS = (
    {"name": "look", "label": "Look"},
    {"name": "replay", "label": "Replay"},
    {"name": "delete", "label": "Delete", "kind": "grave"},
)


def register(sources: Sources) -> None:
    """Serve the page at `/ui/pipelines`."""

    @ui.page("/pipelines")
    async def pipelines(request: Request) -> None:
        acting = Acting(request)
        await acting.as_(Role.VIEWER, "looking at pipelines")
        with frame(sources, acting, "Pipelines"):
            if not sources.pipelines:
                ui.label(sources.missing.get("pipelines", NONE)).classes("empty")
                return
            parts = [_Part(sources.control, watch, acting) for watch in sources.pipelines.values()]

            async def refresh() -> None:
                await acting.as_(Role.VIEWER, "looking at pipelines")
                for part in parts:
                    part.refresh()

            await keep_fresh(refresh, REFRESH_S)


class _Part:
    """One pipeline on the page."""

    def __init__(self, control: Control, watch: PipelineWatch, acting: Acting) -> None:
        self.control = control
        self.watch = watch
        self.acting = acting
        self.heading = ui.html(sanitize=True)
        self.problem = ui.label().classes("problem")
        self.graphs = ui.element("div")
        self.drawn: dict[str, Graph] = {}
        self.processes = Rows(PROCESSES, label=f"Processes of {watch.name}", nothing="Not read yet.")
        ui.html("<h3>Dead letters</h3>", sanitize=False)
        self.letters = Rows(
            LETTERS, label=f"Dead letters of {watch.name}", nothing="Nothing was given up.", actions=ACTIONS,
            on_act=self.act, searchable=True,
        )  # fmt: skip

    def refresh(self) -> None:
        from fieldstation.web.drawing import draw, is_counted

        rows = self.watch.look()
        self.heading.set_content(f"<h2>{self.watch.name} {self.watch.version}</h2>")
        self.problem.set_text(self.watch.problem)
        for workflow in dict.fromkeys(row.workflow for row in rows):
            if workflow not in self.drawn:
                with self.graphs:
                    self.drawn[workflow] = Graph(f"Graph of {self.watch.name}, {workflow}")
            self.drawn[workflow].show(draw([row for row in rows if row.workflow == workflow]))
        names = [column["name"] for column in PROCESSES]
        self.processes.show([
            {"key": f"{row.workflow}/{row.process}", **{name: getattr(row, name) for name in names}}
            | ({} if is_counted(row) else dict.fromkeys(("rate", "lag", "in_work", "redelivered"), ""))
            for row in rows
        ])  # fmt: skip
        operator = self.acting.shown.role >= Role.OPERATOR
        can = ["look", "replay", "delete"] if operator else ["look"]
        self.letters.show([letter_row(found.stream, found.letter, can) for found in self.watch.letters])

    async def act(self, action: str, key: str) -> None:
        stream, _, number = key.rpartition(" ")
        if action == "look":
            await self._look(stream, int(number))
        else:
            await attempt(self._act(action, stream, int(number)))
        self.refresh()

    async def _act(self, action: str, stream: str, number: int) -> str:
        who = await self.acting.as_(Role.OPERATOR, f"the action {action} on a dead letter")
        if action not in ("replay", "delete"):
            raise WebError(f"There is no action {action}.")
        done = await (self.watch.replay if action == "replay" else self.watch.discard)(stream, number)
        self.control.record.audit(Entry(f"dead letter {action}", f"{stream} {number}", who.user, detail=done))
        return done

    async def _look(self, stream: str, number: int) -> None:
        try:
            await self.acting.as_(Role.VIEWER, "looking at a dead letter")
            text = await self.watch.payload(stream, number)
        except WebError as error:
            text = str(error)
        with ui.dialog() as dialog, ui.card().classes("dialog wide"):
            ui.html(f"<h2>Message {number}</h2>", sanitize=False)
            ui.label(text).classes("payload")
            ui.button("Close", on_click=dialog.close, color=None)
        await shown(dialog)


def letter_row(stream: str, letter: Any, can: list[str]) -> Mapping[str, Any]:
    """Return a dead letter as a row."""
    return {
        "key": f"{stream} {letter.number}",
        "at": letter.at.isoformat(timespec="seconds"),
        "process": letter.process,
        "error": letter.error,
        "request": letter.request_id,
        "deliveries": letter.deliveries,
        "can": can,
    }
