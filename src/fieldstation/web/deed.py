"""What a button does: the outcome as a note on the page, an error as its sentence, never a silent nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from nicegui import ui

from fieldstation.core.errors import FieldstationError
from fieldstation.core.log import mask

log = logging.getLogger(__name__)


async def attempt(work: Awaitable[str]) -> bool:
    """Await `work` while a note says so, then show the sentence it returns, or why it failed; tells which."""
    note = ui.notification("Working…", spinner=True, timeout=None, position="bottom")
    try:
        text, good = await work, True
    except FieldstationError as error:
        text, good = mask(str(error)), False
    except Exception:
        log.exception("an action on the panel failed")
        text, good = "Something went wrong; the control's log says what.", False
    note.dismiss()
    ui.notification(
        text, type="positive" if good else "negative", timeout=6 if good else None, close_button="Close",
        position="bottom", multi_line=True,
    )  # fmt: skip
    return good


async def shown(dialog: ui.dialog) -> object:
    """Show a dialog until it is closed, and take it off the page; returns what was submitted, None when nothing."""
    dialog.open()
    answer: object = await dialog
    dialog.delete()
    return answer
