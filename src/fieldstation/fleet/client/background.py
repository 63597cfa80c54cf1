"""The tasks of one client: they start with it, are cancelled with it, and a failing one is heard of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """A task group with an owner task, so that it may be opened and closed by different callers."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._owner: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._closing = asyncio.Event()

    async def open(self) -> None:
        """Start the owner."""
        self._owner = asyncio.create_task(self._own(), name="fleet-client")
        await self._opened.wait()

    async def _own(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._opened.set()
            # Held open by a task of its own: the group ends when this one is cancelled with the rest.
            await self._closing.wait()
            raise asyncio.CancelledError

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` until it ends, is cancelled, or this is closed; what it raises is logged and hurts nobody else."""
        if self._group is None or self._closing.is_set():
            work.close()
            raise RuntimeError("This client is closed.")
        task = self._group.create_task(_guarded(work, name), name=name)
        # A task that is cancelled before its first step has never touched `work`.
        task.add_done_callback(lambda _: work.close())
        return task

    async def close(self) -> None:
        """Cancel everything and wait until it is over."""
        self._closing.set()
        if self._owner is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._owner


async def _guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:
        log.exception("%s failed", name)
