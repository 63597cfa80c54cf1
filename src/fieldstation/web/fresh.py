"""Keep a page fresh: its refresh is repeated, and what goes wrong stands on the page until it goes right again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from nicegui import ui

from fieldstation.core.errors import FieldstationError
from fieldstation.core.log import mask
from fieldstation.core.security import UnauthorizedError

log = logging.getLogger(__name__)


async def keep_fresh(refresh: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Call `refresh` now and every `every_s` seconds while the page is open. After a logout the page says so."""
    problem = ui.label().classes("problem").props("role=alert")

    async def once() -> None:
        try:
            await refresh()
        except UnauthorizedError:
            timer.cancel()
            ui.navigate.to("login?again=1")
        except FieldstationError as error:
            problem.set_text(mask(str(error)))
        except Exception:
            log.exception("the page cannot be refreshed")
            problem.set_text("This page cannot be refreshed now; the control's log says why.")
        else:
            problem.set_text("")

    timer = ui.timer(every_s, once, immediate=False)
    await once()
