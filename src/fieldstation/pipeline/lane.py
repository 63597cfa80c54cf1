"""One input of a node: what waits, what is in work, and the workers that take it in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from fieldstation.pipeline.bus import Bus, Subscription
from fieldstation.pipeline.config import Subscriber
from fieldstation.pipeline.model import Counts, Delivery
from fieldstation.pipeline.work import Work

_YIELD_EVERY = 16  # messages a worker handles before it lets the loop do its other work


class Lane:
    """Takes deliveries of one input, keeps every one of them until it is settled, and loses none.

    `handle` works on one message to its end and never raises, except to be cancelled.
    """

    def __init__(
        self, bus: Bus, settings: Subscriber, counts: Counts, handle: Callable[[Work], Awaitable[None]]
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._counts = counts
        self._handle = handle
        # The server picks a replica by chance, often us again. Half the deliveries are left for what kills its process.
        self._last_offer = settings.max_deliveries // 2
        self._queue: asyncio.Queue[Work] = asyncio.Queue()
        self.held: dict[int, Work] = {}  # by sequence: waiting, in work, waiting for a retry or for confirmations
        self.subscription: Subscription | None = None
        self._closing = False
        self._emptied: asyncio.Event | None = None  # set by the last release of a draining lane

    def deliver(self, delivery: Delivery) -> None:
        """Accept a message from the bus."""
        self._counts.received += 1
        if self._closing:
            self._counts.handed_back += 1
            self._bus.hand_back(delivery)
            return
        held = self.held.get(delivery.origin.sequence)
        if held is not None:
            # The ack wait ran out while we still have it (the loop was blocked, or the broker restarted). It is
            # settled once, through the newest handle.
            self._counts.repeated += 1
            held.delivery.reply = delivery.reply
            return
        work = Work(delivery, self)
        self.held[delivery.origin.sequence] = work
        self._queue.put_nowait(work)

    def again(self, work: Work, delay_s: float) -> None:
        """Put `work` back in the queue after `delay_s`, without blocking the messages behind it."""
        work.begin()
        asyncio.get_running_loop().call_later(delay_s, self._requeue, work)

    def _requeue(self, work: Work) -> None:
        if work.delivery.origin.sequence in self.held and not work.withdrawn:
            work.arrived = time.monotonic()
            self._queue.put_nowait(work)

    def release(self, work: Work) -> None:
        """Forget a settled message."""
        self.held.pop(work.delivery.origin.sequence, None)
        if self._emptied is not None and not self.held:
            self._emptied.set()

    def hand_back(self, work: Work, delay_s: float = 0) -> None:
        """Give a message back to the bus unfinished."""
        work.withdrawn = True
        self.release(work)
        self._counts.handed_back += 1
        self._bus.hand_back(work.delivery, delay_s)

    async def work(self) -> None:
        """Handle messages one after the other, for ever. A lane has as many of these as its concurrency."""
        handled = 0
        while True:
            work = await self._queue.get()
            if work.withdrawn:
                continue
            work.started = time.monotonic()
            work.task = asyncio.current_task()
            await self._handle(work)
            work.task = None
            handled += 1
            if handled % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def tick(self, now: float) -> None:
        """Renew the ack wait of what is held, end handlers that take too long, share what waits too long."""
        renew_after = self._settings.ack_wait_time / 3
        for work in list(self.held.values()):
            if work.task is not None and now - work.started > self._settings.handler_timeout and not work.timed_out:
                work.timed_out = True
                work.task.cancel()
            waiting = work.started == 0.0 and work.tries == 0
            if (
                waiting
                and now - work.arrived > self._settings.hand_back_after
                and work.delivery.deliveries < self._last_offer
                and self._someone_works()
            ):
                self.hand_back(work)
            elif now - work.progressed > renew_after:
                work.progressed = now
                self._bus.in_progress(work.delivery)

    def _someone_works(self) -> bool:
        return any(work.task is not None for work in self.held.values())

    def oldest_s(self, now: float) -> float:
        """How long the longest handler call has been going on, in seconds."""
        return max((now - work.started for work in self.held.values() if work.task is not None), default=0.0)

    async def drain(self, deadline: float) -> None:
        """Take no more, hand back what has not begun, let handlers at work finish until `deadline` (monotonic)."""
        self._closing = True
        if self.subscription is not None:
            await self.subscription.close()
        for work in list(self.held.values()):
            if work.started == 0.0:
                self.hand_back(work)
        while self.held and time.monotonic() < deadline:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._emptied.wait()
        for work in list(self.held.values()):
            if work.task is not None:
                work.task.cancel()
            self.hand_back(work)
