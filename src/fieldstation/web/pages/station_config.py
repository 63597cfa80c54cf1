"""One station's configs: what is in force, what was, and a new one: its difference first, then pushed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nicegui import ui

from fieldstation.core.security import Role
from fieldstation.fleet.control import Control
from fieldstation.fleet.store.ledger import Entry
from fieldstation.web.acting import Acting
from fieldstation.web.deed import attempt, shown
from fieldstation.web.errors import WebError
from fieldstation.web.rows import Rows
from fieldstation.web.station_view import StationView, difference, moment, read_config, text_of

if TYPE_CHECKING:  # it needs the extra `station`, which a control may lack
    from fieldstation.web.stations import Stations

COLUMNS = (
    {"name": "at", "label": "When", "kind": "time"},
    {"name": "revision", "label": "Config"},
    {"name": "version", "label": "Version"},
    {"name": "status", "label": "Answer", "kind": "state"},
    {"name": "reason", "label": "Reason", "kind": "long"},
)
_HELP = "Secrets are shown as ***; where that stays, the station keeps the secret it has. The revision is set for you."


class ConfigPart:
    """The lower part of a station's page."""

    def __init__(self, control: Control, source: Stations, acting: Acting, identity: str) -> None:
        self.control = control
        self.source = source
        self.acting = acting
        self.identity = identity
        ui.html("<h2>Config and version</h2>", sanitize=False)
        with ui.element("div").classes("tools"):
            self.edit = ui.button("Change…", on_click=self._change, color=None).classes("main-button")
        self.table = Rows(
            COLUMNS, label="Configs and answers", nothing="It has not told its config yet.",
            actions=({"name": "back", "label": "Go back to it…"},), on_act=self._back,
        )  # fmt: skip

    def show(self, view: StationView) -> None:
        """Show the answers, newest first; the ones one can go back to have a button."""
        operator = self.acting.shown.role >= Role.OPERATOR
        self.edit.set_enabled(operator and view.config is not None)
        rows = []
        for number, answer in enumerate(view.answers):
            old = answer["revision"] in view.past and answer["revision"] != view.revision
            good = answer["status"] in ("startup", "accepted")
            rows.append(
                {
                    **answer,
                    "key": f"{number} {answer['revision']}",
                    "at": moment(answer["at"]),
                    "can": ["back"] if operator and old and good else [],
                }
            )
        self.table.show(rows[::-1])

    async def _change(self) -> None:
        view = self.source.view(self.identity)
        if view.config is not None:
            await self._ask(view, view.config)

    async def _back(self, _: str, key: str) -> None:
        view = self.source.view(self.identity)
        if (config := view.past.get(int(key.rpartition(" ")[2]))) is not None:
            await self._ask(view, config)

    async def _ask(self, view: StationView, config: Mapping[str, Any]) -> None:
        with ui.dialog() as dialog, ui.card().classes("dialog wide"):
            ui.html("<h2>Config</h2>", sanitize=False)
            ui.label(f"For {self.identity}. {_HELP}").classes("dim")
            text = ui.textarea("New config (JSON)", value=text_of(config)).classes("config")
            lines = ui.element("div").classes("diff").props('role=region aria-label="Difference" tabindex=0')

            def compare() -> None:
                lines.clear()
                with lines:
                    try:
                        changed = difference(view.config, read_config(str(text.value), view.revision))
                    except ValueError as error:
                        ui.label(str(error)).classes("problem")
                        push.disable()
                        return
                    push.set_enabled(bool(changed))
                    if not changed:
                        ui.label("It says the same as the config in force.").classes("dim")
                    for line in changed:
                        kind = {"+": "added", "-": "removed", "@": "place"}.get(line[:1], "same")
                        ui.label(line).classes(kind)

            async def go() -> None:
                push.disable()
                if await attempt(self._push(view, str(text.value))):
                    dialog.close()
                push.enable()

            with ui.element("div").classes("tools"):
                push = ui.button("Push", on_click=go, color=None).classes("main-button")
                ui.button("Cancel", on_click=dialog.close, color=None)
            text.on_value_change(compare)
            compare()
        await shown(dialog)

    async def _push(self, view: StationView, text: str) -> str:
        who = await self.acting.as_(Role.OPERATOR, "changing a station's config")
        highest = max([view.revision, *(int(answer["revision"]) for answer in view.answers)])
        try:
            config = read_config(text, highest + 1)
        except ValueError as error:
            raise WebError(str(error)) from error
        changed = sum(line[:1] in ("+", "-") for line in difference(view.config, config))
        detail = f"revision {highest + 1}, {changed} lines of the difference"
        self.control.record.audit(Entry("config push", self.identity, who.user, detail=detail))
        return await self.source.push(self.identity, config)
