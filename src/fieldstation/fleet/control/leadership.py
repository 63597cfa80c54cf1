"""Which of two controls leads: an epoch in the database, and a beat that the other one watches.

Who leads counts the beat up; who sees it stand still for `lease_s` of its own monotonic clock takes over with the next
epoch. No wall clock takes part. Every transaction of a control checks its epoch, so one that was frozen and thaws can
write nothing, whatever it believes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime

from fieldstation.core.errors import StoreError
from fieldstation.fleet.store import Store, leader
from fieldstation.fleet.store.leader import Seat

log = logging.getLogger(__name__)

NOBODY = -1  # an epoch that never leads
BEATS_PER_LEASE = 4
LOOKS_PER_LEASE = 10


class Leadership:
    """Our place in the row. SQLite has one control, which leads from its start and need not beat.

    `told` hears the database's time at each beat.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease_s: float,
        told: Callable[[datetime], None] = lambda now: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.store.epoch = NOBODY
        self.lease_s = lease_s
        self.name = ""  # `host:port`, known once the port is taken
        self.holder = ""  # who leads, as last seen
        self.epoch = NOBODY
        self.problem = ""  # why the database could not be asked the last time
        self._told = told
        self._clock = clock
        self._alone = store.is_sqlite
        self._seen: Seat | None = None
        self._seen_at = 0.0
        self._safe_until = 0.0
        self._lost = asyncio.Event()

    @property
    def sure(self) -> bool:
        """Nobody else can lead at this moment: true for `lease_s` after the last beat that reached the database."""
        return self.epoch != NOBODY and not self._lost.is_set() and (self._alone or self._clock() < self._safe_until)

    @property
    def seen_epoch(self) -> int:
        """The epoch that was last seen in the database."""
        return NOBODY if self._seen is None else self._seen.epoch

    async def seek(self, *, first: bool = False) -> bool:
        """Look once, and lead if nobody does. At the `first` look of a process an earlier process on our own port is
        known to be gone, since the port is ours."""
        asked = self._clock()
        seat = await asyncio.to_thread(self.store.transact_now, leader.look)
        if seat != self._seen:
            self._seen, self._seen_at = seat, self._clock()
        self.holder = seat.holder
        stale = self._clock() - self._seen_at >= self.lease_s
        if not (self._alone or not seat.holder or stale or (first and seat.holder == self.name)):
            return False
        epoch = await asyncio.to_thread(self.store.transact_now, lambda c: leader.take(c, seat, self.name))
        if epoch is None:
            return False
        self._lost.clear()
        self.epoch, self.holder = epoch, self.name
        self.store.epoch = epoch
        self.store.deposed = self._lost.set
        self._safe_until = asked + self.lease_s
        log.log(logging.INFO if self._alone else logging.WARNING, "this control leads, in epoch %d", epoch)
        return True

    def stand_by(self) -> None:
        """Write nothing from now on."""
        self.epoch = self.store.epoch = NOBODY

    async def wait(self) -> None:
        """Stand by until we lead."""
        while True:
            try:
                found = await self.seek()
                self.problem = ""
                if found:
                    return
            except StoreError as error:
                self._complain("cannot see who leads", error)
            await asyncio.sleep(self.lease_s / LOOKS_PER_LEASE)

    async def hold(self) -> None:
        """Lead, until another control does."""
        while not self._lost.is_set():
            begun = self._clock()
            try:
                if not self._alone:
                    now = await asyncio.to_thread(self.store.transact_now, lambda c: leader.beat(c, self.epoch))
                    if now is None:
                        break
                    self._told(now)
                    self._safe_until = begun + self.lease_s
                self.problem = ""
            except StoreError as error:
                # A database that is away is away for the other control too: we go on, and are not sure of it.
                self._complain("the leader's beat cannot be written", error)
            try:
                async with asyncio.timeout(None if self._alone else self.lease_s / BEATS_PER_LEASE):
                    await self._lost.wait()
            except TimeoutError:
                continue
        log.warning("this control was deposed: epoch %d is over", self.epoch)

    def _complain(self, what: str, error: StoreError) -> None:
        if str(error) != self.problem:
            self.problem = str(error)
            log.error("%s: %s", what, error)

    async def leave(self) -> None:
        """Let the other control lead at once; nothing when we do not."""
        if self.epoch != NOBODY and not self._lost.is_set():
            epoch = self.epoch
            try:
                await asyncio.to_thread(self.store.transact_now, lambda c: leader.leave(c, epoch))
            except StoreError as error:
                log.warning("the other control takes over a few seconds later: %s", error)
        self.stand_by()
