"""What InitHpIo controls: which source feeds the hub, who reads, and the queue in front of a reconfiguration."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable

from fieldstation.stream.errors import (
    IntervalError,
    NoRunError,
    NotInitialisedError,
    ReadersActiveError,
    ShutDownError,
    SourceFailedError,
    StreamEndedError,
    StreamError,
    TooManyReadersError,
)
from fieldstation.stream.hub import Hub, Subscription
from fieldstation.stream.model import HpIo
from fieldstation.stream.source import History, Source

log = logging.getLogger(__name__)

START_DEADLINE_S = 10.0
STOP_DEADLINE_S = 3.0


class Acquisition:
    """The source in force, its readers, and who may change it. One InitHpIo works at a time; the rest queue up."""

    def __init__(
        self,
        hub: Hub,
        open_source: Callable[[HpIo], Source],
        *,
        min_interval_s: float,
        max_readers: int,
        check_data_dir: Callable[[str], object],
        run_active: Callable[[], Awaitable[str | None]],
    ) -> None:
        """`run_active` returns None when an observing run is active, else what it looked for in vain."""
        self.hub = hub
        self.source: Source | None = None
        self.current: HpIo | None = None
        self._open_source = open_source
        self._min_interval_s = min_interval_s
        self._max_readers = max_readers
        self._check_data_dir = check_data_dir
        self._run_active = run_active
        self._writer = asyncio.Lock()  # first come, first served
        self._open = asyncio.Event()  # cleared while a reconfiguration works: new readers wait for it
        self._open.set()
        self._problem: str | None = "it was never initialised"
        self._group: asyncio.TaskGroup | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing = False
        hub.on_demand = self._tell_demand

    async def run(self) -> None:
        """Own the tasks of sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    async def init(self, request: HpIo) -> str | None:
        """Put `request` in force; returns None, or why it failed (then the previous configuration is in force again).

        A request that is refused (an error is raised) changes nothing.
        """
        await self._check(request)
        if self._group is None or self._closing:
            raise ShutDownError
        # A task of its own: a caller that gives up must not leave the change half done. What it raises goes to the
        # caller only; an error that left the task would end the whole group.
        outcome: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._group.create_task(self._init_into(outcome, request), name="init-hp-io")
        return await asyncio.shield(outcome)

    async def _init_into(self, outcome: asyncio.Future[str | None], request: HpIo) -> None:
        try:
            outcome.set_result(await self._init(request))
        except Exception as error:
            outcome.set_exception(error)
        finally:
            outcome.cancel()  # of no effect unless this task was cancelled

    async def start_first(self, request: HpIo) -> str | None:
        """Put the server's own configuration in force: no run needs to be active yet, frames come when one is."""
        if not request.simulate:
            await asyncio.to_thread(self._check_data_dir, request.data_dir)
        return await self._init(request)

    async def _check(self, request: HpIo) -> None:
        if not request.simulate:
            await asyncio.to_thread(self._check_data_dir, request.data_dir)
            missing = await self._run_active()
            if missing is not None:
                raise NoRunError(probe=missing)
        if not math.isfinite(request.update_interval_s) or request.update_interval_s < self._min_interval_s:
            raise IntervalError(value=request.update_interval_s, minimum=self._min_interval_s)

    async def _init(self, request: HpIo) -> str | None:
        async with self._writer:
            readers = self.hub.subscriptions
            if readers and not request.force:
                raise ReadersActiveError(count=len(readers), peers=[reader.peer for reader in readers])
            self._open.clear()
            try:
                return await self._replace(request)
            finally:
                self._open.set()

    async def _replace(self, request: HpIo) -> str | None:
        await self._end_readers(StreamEndedError())
        previous = self.current
        await self._stop_source()
        try:
            await self._start_source(request)
        except (StreamError, OSError, TimeoutError) as error:
            problem = str(error) or f"the source was not ready within {START_DEADLINE_S:g} s"
            log.warning("init failed: %s", problem)
            await self._stop_source()
            self._problem = problem
            if previous is not None:
                await self._restore(previous)
            return problem
        return None

    async def _restore(self, previous: HpIo) -> None:
        try:
            await self._start_source(previous)
            log.info("the previous configuration is in force again: %s", previous.data_dir)
        except (StreamError, OSError, TimeoutError) as error:
            await self._stop_source()
            self._problem = str(error) or "the previous source did not start again"

    async def _start_source(self, request: HpIo) -> None:
        assert self._group is not None
        self.source = source = self._open_source(request)
        async with asyncio.timeout(START_DEADLINE_S):
            await source.start(self.hub.publish)
        self.current, self._problem = request, None
        source.demand(len(self.hub.subscriptions), self.hub.want_every)
        self._watching = self._group.create_task(self._watch(source), name="frame-source")

    async def _stop_source(self) -> None:
        source, self.source, self.current = self.source, None, None
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if source is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_DEADLINE_S):
                    await source.stop()
        self.hub.clear()

    async def _watch(self, source: Source) -> None:
        try:
            await source.run()
        except Exception as error:
            log.exception("the frame source failed")
            self._problem = f"the source failed: {error}"
            failure = error if isinstance(error, StreamError) else SourceFailedError(problem=error)
            for reader in list(self.hub.subscriptions):
                reader.end(failure)

    async def _end_readers(self, reason: StreamError) -> None:
        for reader in list(self.hub.subscriptions):
            reader.end(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while self.hub.subscriptions:
                    self.hub.left.clear()
                    await self.hub.left.wait()
        for reader in list(self.hub.subscriptions):
            self.hub.remove(reader)  # it hangs in a dead connection; its slot is free all the same

    async def check_ready(self) -> None:
        """Wait while a reconfiguration works; raise unless there is a valid source to read from."""
        while not self._open.is_set():
            await self._open.wait()
        if self._closing:
            raise ShutDownError
        if self._problem is not None:
            raise NotInitialisedError(problem=self._problem)

    @contextlib.asynccontextmanager
    async def reader(self, subscription: Subscription) -> AsyncIterator[None]:
        """Hold one of the reader slots, from the moment a source is ready."""
        await self.check_ready()
        if len(self.hub.subscriptions) >= self._max_readers:
            raise TooManyReadersError(limit=self._max_readers)
        self.hub.add(subscription)
        try:
            yield
        finally:
            self.hub.remove(subscription)

    @property
    def interval_s(self) -> float:
        """The update interval of the InitHpIo in force; 0 without one."""
        return self.current.update_interval_s if self.current is not None else 0.0

    def _tell_demand(self) -> None:
        if self.source is not None:
            self.source.demand(len(self.hub.subscriptions), self.hub.want_every)

    def history(self) -> History | None:
        """Return what reads the run so far, or None."""
        return self.source.history() if self.source is not None else None

    async def close(self) -> None:
        """End all readers and the source."""
        self._closing = True
        await self._end_readers(ShutDownError())
        await self._stop_source()

    def health(self) -> dict[str, object]:
        """Tell whether frames can be had, and of the source."""
        source = self.source.health() if self.source is not None else None
        return {
            "ok": self._problem is None and (source is None or source["ok"]),
            "problem": self._problem,
            "source": source,
        }
