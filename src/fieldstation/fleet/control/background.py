"""Work that nobody waits for, inside the task group of control's run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from fieldstation.fleet.errors import NotLeaderError

log = logging.getLogger(__name__)


class Background:
    """A task group whose tasks may fail: a failure is logged and ends only itself."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Background:
        self._closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work`; after the end it is dropped."""
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(self._guard(work, name), name=name)
        self._tasks.add(task)  # kept here: the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _guard(work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except NotLeaderError as error:
            log.info("%s is left to the other control: %s", name, error)
        except Exception:
            log.exception("%s failed", name)
