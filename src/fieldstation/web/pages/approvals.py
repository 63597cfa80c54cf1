"""Approvals: what exactly would run, who asked, and the answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nicegui import ui
from starlette.requests import Request

from fieldstation.core.security import Role
from fieldstation.flow.desk import Desk
from fieldstation.flow.model import Approval, State, Word, shown
from fieldstation.web.acting import Acting
from fieldstation.web.cards import Cards
from fieldstation.web.deed import attempt
from fieldstation.web.errors import WebError
from fieldstation.web.frame import frame
from fieldstation.web.fresh import keep_fresh
from fieldstation.web.rows import Rows
from fieldstation.web.sources import Sources

REFRESH_S = 0.5
_NAMES = {"pool": "work pool", "timeout_s": "ended after", "repeatable": "may run again after a crash"}
THROUGH = "panel"
PAST = (
    {"name": "at", "label": "When", "kind": "time"},
    {"name": "title", "label": "What"},
    {"name": "state", "label": "State", "kind": "state"},
    {"name": "requester", "label": "Asked by"},
    {"name": "answers", "label": "Answers"},
)
_NO_DESK = "This control keeps no approvals; start it with `fieldstation fleet control`, which does."


def card(approval: Approval) -> dict[str, Any]:
    """Return what a card shows: nothing of what will run is left out."""
    return {
        "id": approval.id,
        "title": approval.title,
        "requester": approval.requester,
        "reason": approval.reason,
        "runs": shown(approval.action),
        "settings": _settings(approval),
        "digest": approval.digest,
        "expires": approval.expires_at.isoformat(),
        "created": approval.created_at.isoformat(),
        "needed": approval.quorum,
        "approvers": list(approval.approvers),
        "answers": [f"{a.who}: {a.word.value}" + (f" ({a.comment})" if a.comment else "") for a in approval.answers],
    }


def _settings(approval: Approval) -> str:
    """A command's other members: its pool, its limits. Other actions are shown whole already."""
    action = approval.action
    if action.get("kind") != "command":
        return ""
    others = {key: value for key, value in action.items() if key not in ("kind", "arguments", "shell")}
    return " · ".join(f"{_NAMES.get(key, key)}: {_words(key, value)}" for key, value in others.items())


def _words(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "timeout_s" and isinstance(value, int | float):
        return f"{value:g} s"
    return "none" if value in ("", None) else value if isinstance(value, str) else repr(value)


def past_row(approval: Approval) -> dict[str, Any]:
    """Return the row of one that is decided."""
    at = approval.changed_at or approval.created_at
    said = "; ".join(f"{a.who} {a.word.value} by {a.through}" + (f": {a.comment}" if a.comment else "")
                     for a in approval.answers)  # fmt: skip
    return {
        "key": approval.id,
        "at": at.isoformat(),
        "title": approval.title,
        "state": approval.state.value,
        "requester": approval.requester,
        "answers": said,
    }


def register(sources: Sources) -> None:
    """Serve the page at `/ui/approvals`."""

    @ui.page("/approvals")
    async def approvals(request: Request) -> None:
        acting = Acting(request)
        await acting.as_(Role.VIEWER, "looking at approvals")
        with frame(sources, acting, "Approvals"):
            if sources.desk is None:
                ui.label(_NO_DESK).classes("empty")
                return
            page = _Page(sources.desk, acting)
            await keep_fresh(page.refresh, REFRESH_S)


class _Page:
    def __init__(self, desk: Desk, acting: Acting) -> None:
        self.desk = desk
        self.acting = acting
        self.name: ui.input | None = None
        self.seen: tuple[tuple[str, int], ...] | None = None
        if acting.is_local:
            # Nobody is asked for a token here, so people say who they are, as on the command line.
            self.name = ui.input("Your name", value=acting.shown.user).classes("short")
        self.cards = Cards(self.answer, may_answer=acting.shown.role >= Role.USER)
        ui.html("<h2>Decided</h2>", sanitize=False)
        self.past = Rows(PAST, label="Decided approvals", nothing="Nothing is decided yet.", searchable=True)

    async def refresh(self) -> None:
        await self.acting.as_(Role.VIEWER, "looking at approvals")
        found = await self.desk.listing()
        seen = tuple((a.id, a.version) for a in found)
        if seen == self.seen:
            return
        self.seen = seen
        self.cards.show([card(a) for a in found if a.state is State.PENDING])
        decided = sorted((a for a in found if a.state is not State.PENDING), key=_moved, reverse=True)
        self.past.show([past_row(a) for a in decided])

    async def answer(self, id: str, word: str, comment: str) -> None:
        await attempt(self._answer(id, Word(word), comment))
        await self.refresh()

    async def _answer(self, identity: str, word: Word, comment: str) -> str:
        principal = await self.acting.as_(Role.USER, "answering a request")
        who = str(self.name.value).strip() if self.name is not None else principal.user
        if not who or len(who) > 200 or len(comment) > 2000:
            raise WebError("Say your name (1 to 200 characters), and the reason in at most 2000.")
        after = await self.desk.answer(identity, who, word, THROUGH, comment.strip())
        if after.state is State.PENDING:
            return f"Noted. “{after.title}” waits for {after.quorum} approvals."
        return f"“{after.title}” is {after.state.value}."


def _moved(approval: Approval) -> datetime:
    return approval.changed_at or approval.created_at
