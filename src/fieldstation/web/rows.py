"""A table that is live: rows change in place, actions are buttons, and on a phone each row is a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

Row = Mapping[str, Any]


class Rows(ui.element, component="static/rows.js"):
    """`columns` are {"name", "label", "kind"?} with kind text, brief, long, state, time or code. A row is {"key",
    column: value, "can": [names of actions it offers]}. `actions` are {"name", "label"};
    `on_act(action, key)` hears their buttons. With `selectable`, `selected` holds the keys of the ticked rows."""

    def __init__(
        self,
        columns: Sequence[Mapping[str, str]],
        *,
        label: str,
        nothing: str,
        actions: Sequence[Mapping[str, str]] = (),
        on_act: Callable[[str, str], Any] | None = None,
        selectable: bool = False,
        searchable: bool = False,
    ) -> None:
        super().__init__()
        self.selected: list[str] = []
        self._rows: list[Row] = []
        self._props["columns"] = list(columns)
        self._props["rows"] = self._rows
        self._props["label"] = label
        self._props["nothing"] = nothing
        self._props["actions"] = list(actions)
        self._props["selectable"] = selectable
        self._props["searchable"] = searchable
        if on_act is not None:
            self.on("act", lambda event: on_act(str(event.args["action"]), str(event.args["key"])))
        self.on("ticked", lambda event: self._ticked(event.args))

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows; nothing is sent when they are as before."""
        new = list(rows)
        if new != self._rows:
            self._rows = new
            self._props["rows"] = new
            self.update()

    def _ticked(self, keys: object) -> None:
        known = {row["key"] for row in self._rows}
        self.selected = [key for key in keys if key in known] if isinstance(keys, list) else []
