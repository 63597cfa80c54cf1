"""Wait for a condition instead of sleeping: a test takes as long as the thing it waits for, and no longer."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from fieldstation.core.errors import FieldstationError

T = TypeVar("T")


class DeadlinePassedError(FieldstationError, AssertionError):
    """Waited {deadline_s} s in vain for {what}; the last look gave {last}."""


def wait_for(condition: Callable[[], T], deadline_s: float = 10.0, *, what: str = "", every_s: float = 0.01) -> T:
    """Call `condition` until it returns something true and return that; DeadlinePassedError after `deadline_s`.

    An exception from `condition` is not swallowed: write `what.exists() and what.read_text()`.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        last = condition()
        if last:
            return last
        if time.monotonic() > deadline:
            raise DeadlinePassedError(deadline_s=deadline_s, what=what or _source(condition), last=repr(last))
        time.sleep(every_s)


async def eventually(
    condition: Callable[[], T | Awaitable[T]], deadline_s: float = 10.0, *, what: str = "", every_s: float = 0.01
) -> T:
    """The same inside an event loop; `condition` may be a coroutine function."""
    last: object = None
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                answer = condition()
                last = await answer if inspect.isawaitable(answer) else answer
                if last:
                    return cast(T, last)
                await asyncio.sleep(every_s)
    except TimeoutError as error:
        raise DeadlinePassedError(deadline_s=deadline_s, what=what or _source(condition), last=repr(last)) from error


def _source(condition: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
