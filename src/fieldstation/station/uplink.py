"""The Uplink interface, and the loop that sends what the outbox holds: oldest first, readings before logs.

A delivery ends with the server's acknowledgement and with nothing else. What cannot be sent is set aside.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from fieldstation.station.errors import PoisonMessageError
from fieldstation.station.outbox import Outbox
from fieldstation.station.store import QueueRow

OFFLINE_DRAIN_S = 10.0  # at a stop, how long a line that is down may take to come back
LAST_WORDS_S = 2.0
LOOK_AGAIN_S = 30.0  # a safety net below the writer's news


class Uplink(Protocol):
    """One way to a server. Built from its section of the config; `run` is its life."""

    async def run(self) -> None:
        """Connect, connect again whenever the line breaks, hear configs; until cancelled."""

    @property
    def connected(self) -> bool:
        """Whether the server has accepted us and the line stands."""

    def encode(self, row: QueueRow) -> Any | None:
        """Return the row as `send` wants it, None when this server is told nothing of it; PoisonMessageError."""

    async def send(self, parcel: Any) -> None:
        """Send and return when the server has acknowledged; waits across outages. PoisonMessageError when refused."""

    def status(self) -> dict[str, object]:
        """Say how it is, for `station status`."""


class LastMinute:
    """Counts what happened in the last sixty seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque()  # (second, how many in it)

    def add(self) -> None:
        """Count one."""
        now = int(self._clock())
        last, count = self._seconds.pop() if self._seconds else (now, 0)
        if last != now:
            self._seconds.append((last, count))
            count = 0
        self._seconds.append((now, count + 1))
        if len(self._seconds) > 61:
            self._seconds.popleft()

    def __int__(self) -> int:
        since = self._clock() - 60
        return sum(count for second, count in self._seconds if second > since)


class SendLoop:
    """Keeps up to `max_parallel` messages on their way until it is torn down and has drained."""

    def __init__(
        self,
        outbox: Outbox,
        uplink: Uplink,
        *,
        max_parallel: int,
        max_drain_s: float,
        tell: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._uplink = uplink
        self._max_parallel = max_parallel
        self._max_drain_s = max_drain_s
        self._tell = tell
        self._clock = clock
        self._after = (0, 0)
        self._inflight: set[tuple[int, int]] = set()
        self._acknowledged: list[tuple[int, int]] = []
        self._forgetting = False
        self._wake = asyncio.Event()
        self._flush = asyncio.Event()
        self._teardown_at: float | None = None
        self._ending_at: float | None = None
        self._last_online = 0.0
        self.delivered = 0
        self._lately = LastMinute(clock)
        self.parked = 0
        self.last_delivery: float | None = None

    def tear_down(self) -> None:
        """Send what is queued, for at most the drain time, then return from `run`."""
        if self._teardown_at is None:
            self._teardown_at = self._last_online = self._clock()
        self._wake.set()

    def end_soon(self) -> None:
        """Send nothing more, take in what is acknowledged within two seconds, then return from `run`.

        A restart then repeats little of what was just sent. What is left stays in the outbox.
        """
        if self._ending_at is None:
            self._ending_at = self._clock()
        self._wake.set()

    @property
    def unforgotten(self) -> bool:
        """Whether acknowledged deliveries could not be deleted, because the writer is gone."""
        return bool(self._acknowledged or self._forgetting)

    def status(self) -> dict[str, object]:
        """Return what `station status` shows of this loop."""
        return {
            "connected": self._uplink.connected,
            "delivered": self.delivered,
            "delivered_per_minute": int(self._lately),
            "parked": self.parked,
            "in_flight": len(self._inflight),
            "last_delivery": self.last_delivery,
            **self._uplink.status(),
        }

    async def run(self) -> None:
        """Send until torn down and drained; whatever is left then stays in the outbox."""
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(work) for work in (self._uplink.run(), self._forget(), self._listen())]
            sending: set[asyncio.Task[None]] = set()
            while not self._drained(self._fill(group, sending)):
                self._wake.clear()
                settled = self._teardown_at is None and self._ending_at is None and self._uplink.connected
                timeout_s = LOOK_AGAIN_S if settled else 0.25
                try:
                    async with asyncio.timeout(timeout_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
            for task in sending:
                task.cancel()
            while self.unforgotten and not self._over(LAST_WORDS_S):
                self._flush.set()
                await asyncio.sleep(0.01)
            for task in helpers:
                task.cancel()

    def _fill(self, group: asyncio.TaskGroup, sending: set[asyncio.Task[None]]) -> bool:
        """Put rows on their way; returns whether there were any."""
        room = self._max_parallel - len(self._inflight)
        # Rows are fetched by the handful: one look for each freed place would cost more than the sending.
        if (
            self._ending_at is not None
            or not self._uplink.connected
            or (self._inflight and room < (self._max_parallel + 1) // 2)
        ):
            return bool(self._inflight)
        rows = self._next_rows(room)
        for row in rows:
            self._inflight.add((row.rank, row.seq))
            task = group.create_task(self._deliver(row))
            sending.add(task)
            task.add_done_callback(sending.discard)
        return bool(rows)

    def _next_rows(self, room: int) -> list[QueueRow]:
        try:
            rows = self._outbox.next_rows(room, self._after)
            if not rows and self._after != (0, 0) and not (self._inflight or self._acknowledged or self._forgetting):
                # Nothing is under way, so whatever lies behind us was put back: look from the start.
                self._after = (0, 0)
                rows = self._outbox.next_rows(room, self._after)
        except sqlite3.Error as error:
            self._tell("ERROR", f"the outbox could not be read: {error}")
            self._outbox.refresh()
            self._after = (0, 0)
            return []
        for row in rows:
            self._after = (row.seq, self._after[1]) if row.rank == 0 else (self._after[0], row.seq)
        return rows

    async def _deliver(self, row: QueueRow) -> None:
        try:
            parcel = self._uplink.encode(row)
            if parcel is not None:
                await self._uplink.send(parcel)
        except PoisonMessageError as error:
            await self._outbox.park(row, str(error))
            self.parked += 1
            self._tell("WARNING", f"message {row.seq} is set aside: {error}")
        else:
            self._acknowledged.append((row.rank, row.seq))
            self.delivered += 1
            self._lately.add()
            self.last_delivery = time.time()
            self._flush.set()
        finally:
            self._inflight.discard((row.rank, row.seq))
            self._wake.set()

    async def _forget(self) -> None:
        while True:
            await self._flush.wait()
            self._flush.clear()
            if self._acknowledged:
                keys, self._acknowledged = self._acknowledged, []
                self._forgetting = True
                try:
                    await self._outbox.forget(keys)
                finally:
                    self._forgetting = False
                self._wake.set()

    async def _listen(self) -> None:
        async for _ in self._outbox.news():
            self._wake.set()

    def _over(self, seconds: float) -> bool:
        return self._ending_at is not None and self._clock() - self._ending_at >= seconds

    def _drained(self, busy: bool) -> bool:
        if self._ending_at is not None:
            return not self._inflight or not self._uplink.connected or self._over(LAST_WORDS_S)
        if self._teardown_at is None:
            return False
        now = self._clock()
        if self._uplink.connected:
            self._last_online = now
            if not busy and not self._inflight:
                return True
        over = now - self._teardown_at >= self._max_drain_s
        return over or now - self._last_online >= OFFLINE_DRAIN_S
