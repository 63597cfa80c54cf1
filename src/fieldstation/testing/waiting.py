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


# A busy machine is no fault of what is tested: a deadline is there for what will never happen.
DEADLINE_S = 60.0


def wait_for(
    condition: Callable[[], T], deadline_s: float = DEADLINE_S, *, what: str = "", every_s: float | None = None
) -> T:
    """Call `condition` until it returns something true and return that; DeadlinePassedError after `deadline_s`.

    It is called every 10 ms in the first second and every 50 ms after that, unless `every_s` says otherwise: a look
    takes time from what is looked at. An exception from it is not swallowed: write `x.exists() and x.read_text()`.
    """
    started = time.monotonic()
    deadline = started + deadline_s
    while True:
        last = condition()
        if last:
            return last
        if time.monotonic() > deadline:
            raise DeadlinePassedError(deadline_s=deadline_s, what=what or _source(condition), last=repr(last))
        time.sleep(_pause(started, every_s))


async def eventually(
    condition: Callable[[], T | Awaitable[T]],
    deadline_s: float = DEADLINE_S,
    *,
    what: str = "",
    every_s: float | None = None,
) -> T:
    """The same inside an event loop; `condition` may be a coroutine function."""
    last: object = None
    started = time.monotonic()
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                answer = condition()
                last = await answer if inspect.isawaitable(answer) else answer
                if last:
                    return cast(T, last)
                await asyncio.sleep(_pause(started, every_s))
    except TimeoutError as error:
        raise DeadlinePassedError(deadline_s=deadline_s, what=what or _source(condition), last=repr(last)) from error


def _pause(started: float, every_s: float | None) -> float:
    if every_s is not None:
        return every_s
    return 0.01 if time.monotonic() - started < 1 else 0.05


def _source(condition: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
