"""What the leader does by itself: end leases whose time is over, warn, notice silence, forget what is too old."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from fieldstation.core import log as logs
from fieldstation.core.errors import StoreError
from fieldstation.fleet.config import ControlConfig
from fieldstation.fleet.control import told as say
from fieldstation.fleet.control.clock import FleetClock
from fieldstation.fleet.control.index import Holding
from fieldstation.fleet.control.leadership import Leadership
from fieldstation.fleet.control.leases import Leases
from fieldstation.fleet.control.lines import Lines
from fieldstation.fleet.control.record import Record
from fieldstation.fleet.control.waiting import Queue
from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.model import WorkerState
from fieldstation.fleet.schedule import Due, Terms, due
from fieldstation.fleet.store import ledger, retention
from fieldstation.fleet.store.ledger import Entry

log = logging.getLogger(__name__)

PRUNE_EVERY_S = 3600.0
PRUNE_PAUSE_S = 0.5


class Upkeep:
    """`tick` and `prune` run for as long as we lead."""

    def __init__(
        self,
        record: Record,
        leases: Leases,
        lines: Lines,
        queue: Queue,
        leadership: Leadership,
        clock: FleetClock,
        terms: Terms,
        config: ControlConfig,
    ) -> None:
        self.record = record
        self.index = record.index
        self.leases = leases
        self.lines = lines
        self.queue = queue
        self.leadership = leadership
        self.clock = clock
        self.terms = terms
        self.config = config

    async def tick(self) -> None:
        """Look at every clock, again and again."""
        while True:
            await asyncio.sleep(self.config.tick_s)
            if not self.leadership.sure:
                continue  # what we would tell may be wrong; what we would write would be refused
            try:
                await self._mind_the_clock()
            except (StoreError, NotLeaderError) as error:
                log.error("the new ends of reservations are not written: %s", error)
            self.lines.notice_silence()
            self.queue.forget_unasked()
            for holding in list(self.index.holdings.values()):
                with logs.context(lease=holding.lease.id):
                    try:
                        await self._judge(holding)
                    except (StoreError, NotLeaderError) as error:
                        log.error("the lease cannot be ended yet: %s", error)
                    except Exception:  # one lease must not stop the clock of all others
                        log.exception("the lease cannot be judged")

    async def prune(self) -> None:
        """Forget what is older than `keep_days`, now and then."""
        while True:
            before = datetime.now(UTC) - timedelta(days=self.config.keep_days)
            for prune in (retention.prune_audit, retention.prune_leases):
                try:
                    more = True
                    while more:
                        more = await self.record.store.transact(partial(prune, before=before))
                        await asyncio.sleep(PRUNE_PAUSE_S)
                except (StoreError, NotLeaderError) as error:
                    log.error("what is too old stays for now: %s", error)
            await asyncio.sleep(PRUNE_EVERY_S)

    async def _judge(self, holding: Holding) -> None:
        worker = self.index.workers[holding.lease.worker]
        # Who presents leases on a worker that is away, nobody knows: the grace time waits for its return.
        idle_since = holding.idle_since if worker.state is WorkerState.ONLINE else None
        now = time.monotonic()
        verdict = due(now, holding.deadline, idle_since, holding.warned_at, self.terms)
        serials = list(holding.lease.fences)
        if verdict is Due.EXPIRED:
            await self.leases.end(serials, "its time was over")
        elif verdict is Due.ABANDONED:
            await self.leases.end(serials, "its holder has gone")
        elif verdict is Due.WARN:
            holding.warned_at = now
            for serial in serials:
                self.leases.publisher.publish(say.told(holding.lease.holder, serial, {"event": say.ENDING_SOON}))

    async def _mind_the_clock(self) -> None:
        """A wall clock that was set changes no lease: only when it is said to end."""
        step_s = self.clock.stepped_s()
        if not step_s:
            return
        log.warning("the clock was set by %+.0f s; reservations keep their length", step_s)
        async with self.record.lock:
            now, running = self.clock.now(), time.monotonic()
            ends = {
                lease: now + timedelta(seconds=holding.deadline - running)
                for lease, holding in self.index.holdings.items()
            }
            for lease, until in ends.items():
                holding = self.index.holdings[lease]
                holding.lease = replace(holding.lease, until=until)
            entry = Entry("clock set", f"{step_s:+.0f} s")
            await self.record.commit(lambda connection: ledger.retime(connection, ends), [entry])
