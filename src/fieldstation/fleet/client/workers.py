"""The lines to the workers that host our devices: one per worker, with all our leases there in its hand-shake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from fieldstation import __version__
from fieldstation.fleet.client.address import Address
from fieldstation.fleet.client.background import Background
from fieldstation.fleet.client.http import error_from
from fieldstation.fleet.client.line import Line, LineDownError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Worker:
    line: Line
    task: asyncio.Task[None]
    tokens: list[str] = field(default_factory=list)


class Workers:
    """Lines by the worker's address. `on_event` hears their events; `on_up` hears of each hand-shake."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        background: Background,
        name: str,
        *,
        on_event: Callable[..., None],
        on_up: Callable[[str], None],
    ) -> None:
        self._session = session
        self._background = background
        self._name = name
        self._on_event = on_event
        self._on_up = on_up
        self._workers: dict[str, _Worker] = {}

    async def present(self, url: str, token: str) -> None:
        """Have the worker at `url` know that we hold this lease; opens the line when there is none.

        Raises LeaseRefusedError (or what else the worker says) when it does not accept the lease.
        """
        worker = self._workers.get(url) or self._open(url)
        if token in worker.tokens:
            return
        worker.tokens.append(token)
        if not worker.line.up.is_set():
            return  # the hand-shake will carry it
        try:
            answer = await worker.line.call("present", token)
        except LineDownError:
            return  # the next hand-shake will
        if isinstance(answer, Mapping) and "error" in answer:
            worker.tokens.remove(token)
            raise error_from(answer)

    def _open(self, url: str) -> _Worker:
        tokens: list[str] = []
        line = Line(
            self._session,
            lambda: (Address(url),),
            auth=lambda: {"client_id": self._name, "fieldstation": __version__, "leases": tokens},
            on_event=self._on_event,
            on_up=lambda: self._on_up(url),
            on_down=lambda: log.info("the line to the worker at %s is down", url),
        )
        task = self._background.spawn(line.run(), f"line to {url}")
        worker = self._workers[url] = _Worker(line, task, tokens)
        return worker

    async def send(self, url: str, message: bytes, callback: Callable[..., None] | None = None) -> None:
        """Send a packed `request`; LineDownError when the line is down."""
        worker = self._workers.get(url)
        if worker is None:
            raise LineDownError
        await worker.line.emit("request", message, callback)

    def is_up(self, url: str) -> bool:
        """True while the line to this worker stands."""
        worker = self._workers.get(url)
        return worker is not None and worker.line.up.is_set()

    async def wait_up(self, url: str, timeout_s: float) -> bool:
        """Wait until the line to this worker stands; False when it does not in time, or is not wanted any more."""
        worker = self._workers.get(url)
        return worker is not None and await worker.line.wait_up(timeout_s)

    def problem(self, url: str) -> str:
        """Say why there is no line to this worker, empty when there is one."""
        worker = self._workers.get(url)
        if worker is None or worker.line.up.is_set():
            return ""
        return f"the worker at {url} cannot be reached ({worker.line.refusal or 'no answer'})"

    def keep(self, tokens_by_url: Mapping[str, list[str]]) -> None:
        """Hang up on workers that host nothing of ours any more, and forget leases that are over."""
        for url, worker in list(self._workers.items()):
            if url in tokens_by_url:
                worker.tokens[:] = tokens_by_url[url]
            else:
                del self._workers[url]
                worker.task.cancel()

    def state(self) -> dict[str, Any]:
        """Return which worker's line stands, for people who look."""
        return {url: worker.line.up.is_set() for url, worker in self._workers.items()}
