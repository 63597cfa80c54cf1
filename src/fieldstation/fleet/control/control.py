"""The control server without a protocol: the parts wired together, and their clock."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fieldstation.core.errors import StoreError
from fieldstation.core.events import Publisher
from fieldstation.core.security import Principal, Role, authorize, hash_token
from fieldstation.fleet.config import ControlConfig
from fieldstation.fleet.control import told as say
from fieldstation.fleet.control.background import Background
from fieldstation.fleet.control.care import Care
from fieldstation.fleet.control.index import Holding
from fieldstation.fleet.control.leases import Call, Leases
from fieldstation.fleet.control.lines import Lines
from fieldstation.fleet.control.record import Record
from fieldstation.fleet.control.reservations import Reservations
from fieldstation.fleet.control.waiting import Queue
from fieldstation.fleet.model import DeviceState, Holder, WorkerState
from fieldstation.fleet.schedule import Due, Terms, due, left_after_restart
from fieldstation.fleet.store import Store, ledger, tokens

log = logging.getLogger(__name__)

TOKENS_S = 2.0  # how long a revoked token may still work
MISS_S = 0.5  # unknown tokens make us look again, but not at every guess


class Control:
    """All of control. `call` says something to a worker; `events` tells what clients must hear."""

    def __init__(self, config: ControlConfig, store: Store, call: Call) -> None:
        self.config = config
        self.store = store
        self.events: Publisher[say.News] = Publisher()
        self.background = Background()
        self.record = Record(store)
        self.index = self.record.index
        self.queue = Queue(self.index, config.queue_limit, self._changed)
        self.leases = Leases(
            self.record,
            call,
            self.events,
            self.background,
            self._changed,
            lease_s=config.lease_s,
            assign_wait_s=config.assign_wait_s,
        )
        self.reservations = Reservations(self.record, self.leases, self.queue, command_s=config.command_s)
        self.record.history_kept = config.history_kept
        self.care = Care(self.record, call, self._changed, command_s=config.command_s)
        self.lines = Lines(
            self.record,
            self.leases,
            self.background,
            self._changed,
            beat_s=config.beat_s,
            silent_beats=config.silent_beats,
            probe_s=config.probe_s,
            dead_after_s=config.dead_after_s,
            return_s=config.return_s,
            care=self.care,
        )
        self.terms = Terms(config.lease_s, config.ending_soon_s, config.ending_soon_every_s, config.grace_s)
        self.amount = 0
        self._tokens: dict[str, Principal] = {}
        self._tokens_read_at = 0.0

    async def start(self) -> None:
        """Read the database. No lease ends by a restart, and the grace clocks begin anew."""
        contents = await self.record.load()
        now = time.monotonic()
        self.index.out_of_service = dict(contents.out_of_service)
        hosts = {device.worker for device in contents.devices} | {lease.worker for lease in contents.leases}
        for worker in contents.workers:
            if worker.state is WorkerState.DEAD and worker.name not in hosts:
                continue  # all its devices were deleted; its row stays for the history of leases
            state = WorkerState.DEAD if worker.state is WorkerState.DEAD else WorkerState.UNREACHABLE
            self.index.workers[worker.name] = replace(worker, state=state)
        for device in contents.devices:
            lost = device.state is DeviceState.RESERVED  # unless one of the leases below says so
            now_is = DeviceState.AWAIT_FLASH_DEFAULT if lost else device.state
            self.index.devices[device.serial] = replace(device, state=now_is)
        for lease in contents.leases:
            left_s = left_after_restart((lease.until - datetime.now(UTC)).total_seconds(), self.terms)
            idle_since = now if lease.had_socket else None
            self.index.add(Holding(lease, now + left_s, idle_since=idle_since, noted=lease.had_socket))
        await self.refresh_tokens()
        self._changed()

    async def run(self) -> None:
        """Keep the clocks until cancelled."""
        async with self.background:
            for worker in self.index.workers.values():
                if worker.state is not WorkerState.DEAD:
                    self.lines.unreachable(worker.name)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.record.keep_flushed(), name="flush")
                group.create_task(self._tick(), name="clock")
                group.create_task(self._watch_tokens(), name="tokens")

    async def stop(self) -> None:
        """Write what is not on disk yet."""
        try:
            await self.record.flush()
        finally:
            await asyncio.to_thread(self.store.close)

    # Reading costs no database.

    def available(self, principal: Principal) -> int:
        """How many devices anybody could reserve now, of all kinds."""
        authorize(principal, Role.VIEWER, "looking at devices")
        return self.amount

    def available_serials(self, principal: Principal) -> list[str]:
        """Which devices anybody could reserve now."""
        authorize(principal, Role.VIEWER, "looking at devices")
        return sorted(device.serial for device in self.queue.free())

    async def history(self, principal: Principal, limit: int, before: int | None = None) -> list[dict[str, Any]]:
        """The audit log, newest first."""
        authorize(principal, Role.VIEWER, "reading the history")
        await self.record.flush()
        return await self.store.transact(lambda connection: ledger.read_audit(connection, limit, before))

    # Clients' sockets.

    def client_connected(self, holder: Holder) -> None:
        """A socket of `holder` has opened."""
        self.index.clients[holder] += 1
        self._touch(holder)

    def client_gone(self, holder: Holder) -> None:
        """A socket of `holder` has closed; with the last one the grace time begins."""
        self.index.clients[holder] -= 1
        if self.index.clients[holder] <= 0:
            del self.index.clients[holder]
        self._touch(holder)

    def _touch(self, holder: Holder) -> None:
        for lease, holding in self.index.holdings.items():
            if holding.lease.holder == holder:
                self.lines.touch(lease)

    # Tokens.

    def whose(self, token: str) -> Principal | None:
        """Return whose token this is, as of at most two seconds ago."""
        return self._tokens.get(hash_token(token))

    def has_tokens(self) -> bool:
        """Tell whether any token exists."""
        return bool(self._tokens)

    async def authenticate(self, token: str) -> Principal | None:
        """Return whose token this is; a token that was made a moment ago is found too."""
        principal = self.whose(token)
        if principal is None and time.monotonic() - self._tokens_read_at > MISS_S:
            await self.refresh_tokens()
            principal = self.whose(token)
        return principal

    async def refresh_tokens(self) -> None:
        """Read the tokens anew."""
        self._tokens_read_at = time.monotonic()
        self._tokens = await self.store.transact(tokens.everybody)

    async def _watch_tokens(self) -> None:
        while True:
            await asyncio.sleep(TOKENS_S)
            try:
                await self.refresh_tokens()
            except StoreError as error:
                log.error("tokens are as they were, the database does not answer: %s", error)

    # The clock.

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.config.tick_s)
            self.lines.notice_silence()
            self.queue.forget_unasked()
            for holding in list(self.index.holdings.values()):
                try:
                    await self._judge(holding)
                except StoreError as error:
                    log.error("the lease %s cannot be ended yet: %s", holding.lease.id, error)
                except Exception:  # one lease must not stop the clock of all others
                    log.exception("the lease %s cannot be judged", holding.lease.id)

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
                self.events.publish(say.told(holding.lease.holder, serial, {"event": say.ENDING_SOON}))

    def _changed(self) -> None:
        """Devices, leases or workers have changed: plan anew, and tell when the number of free ones has."""
        self.queue.changed()
        amount = len(self.queue.free())
        if amount != self.amount:
            self.amount = amount
            self.events.publish(say.available(amount))
