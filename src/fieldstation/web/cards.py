"""The requests that wait for an answer, as cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import ui


class Cards(ui.element, component="static/approvals.js"):
    """The requests that wait, a card each; `on_answer(id, word, comment)` hears the buttons."""

    def __init__(self, on_answer: Callable[..., Any], *, may_answer: bool) -> None:
        super().__init__()
        self._shown: list[dict[str, Any]] = []
        self._props["cards"] = self._shown
        self._props["may"] = may_answer
        self.on("answer", lambda event: on_answer(**{key: str(event.args[key]) for key in ("id", "word", "comment")}))

    def show(self, cards: list[dict[str, Any]]) -> None:
        """Show these; nothing is sent when they are as before."""
        if cards != self._shown:
            self._shown = cards
            self._props["cards"] = cards
            self.update()
