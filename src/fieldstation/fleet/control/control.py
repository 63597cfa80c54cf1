"""The control server without a protocol: the parts wired together, and their clock."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from fieldstation.core.errors import StoreError
from fieldstation.core.events import Publisher
from fieldstation.core.security import Principal, Role, authorize, hash_token
from fieldstation.fleet.config import ControlConfig
from fieldstation.fleet.control import told as say
from fieldstation.fleet.control.background import Background
from fieldstation.fleet.control.care import Care
from fieldstation.fleet.control.clock import FleetClock
from fieldstation.fleet.control.index import Holding
from fieldstation.fleet.control.leadership import Leadership
from fieldstation.fleet.control.leases import Call, Leases
from fieldstation.fleet.control.lines import Lines
from fieldstation.fleet.control.record import Record
from fieldstation.fleet.control.reservations import Reservations
from fieldstation.fleet.control.upkeep import Upkeep
from fieldstation.fleet.control.waiting import Queue
from fieldstation.fleet.errors import LeaseTooLongError, NotLeaderError
from fieldstation.fleet.model import DeviceState, Holder, WorkerState
from fieldstation.fleet.schedule import Terms, left_after_restart
from fieldstation.fleet.store import Store, chain, ledger, tokens
from fieldstation.fleet.store.ledger import Entry

log = logging.getLogger(__name__)

TOKENS_S = 2.0  # how long a revoked token may still work
SETTLE_S = 2.0  # how long a reservation waits for workers that were there when we began to lead
MISS_S = 0.5  # unknown tokens make us look again, but not at every guess


class Control:
    """All of control. `call` says something to a worker; `events` tells what clients must hear."""

    def __init__(self, config: ControlConfig, store: Store, call: Call) -> None:
        self.config = config
        self.store = store
        self.clock = FleetClock()
        self.leadership = Leadership(store, lease_s=config.leader_lease_s, told=self.clock.set)
        self.leads = False
        self.leading: Publisher[bool] = Publisher()  # whether we lead, at each change
        self.events: Publisher[say.News] = Publisher()
        self.background = Background()
        self.record = Record(store)
        self.index = self.record.index
        self.queue = Queue(self.index, config.queue_limit, config.lease_s, self._changed)
        self.leases = Leases(
            self.record,
            call,
            self.events,
            self.background,
            self._changed,
            self.clock.now,
            assign_wait_s=config.assign_wait_s,
        )
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
        self.reservations = Reservations(
            self.record,
            self.leases,
            self.queue,
            settled=self.lines.settled,
            length=self._length,
            command_s=config.command_s,
        )
        longest = max(config.max_lease(role) for role in Role)
        self.terms = Terms(longest, config.ending_soon_s, config.ending_soon_every_s, config.grace_s)
        self.upkeep = Upkeep(
            self.record, self.leases, self.lines, self.queue, self.leadership, self.clock, self.terms, config
        )
        self.amount = 0
        self._tokens: dict[str, Principal] = {}
        self._tokens_read_at = 0.0

    async def start(self, name: str, *, port_is_ours: bool) -> None:
        """Lead if nobody else does, or stand by. `name` is our `host:port`; see `Leadership.seek`."""
        self.leadership.name = name
        if await self.leadership.seek(first=port_is_ours):
            await self._take_over()

    async def run(self) -> None:
        """Lead and stand by in turn, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_tokens(), name="tokens")
            while True:
                if not self.leads:
                    await self._stand_by()
                await self._lead()
                await self._step_down()

    async def stop(self) -> None:
        """Write what is not on disk yet, and let the other control lead."""
        try:
            if self.leads:
                await self.record.flush()
                await self.leadership.leave()
        except NotLeaderError as error:
            log.info("nothing is left to be written: %s", error)
        finally:
            await asyncio.to_thread(self.store.close)

    def must_lead(self) -> None:
        """Raise NotLeaderError when we do not lead."""
        if not self.leads:
            holder = self.leadership.holder
            raise NotLeaderError(leader=holder if holder not in ("", self.leadership.name) else "another control")

    def _length(self, principal: Principal, for_s: float | None) -> float:
        """How long a lease of theirs may last now; LeaseTooLongError when they ask for more."""
        most = self.config.max_lease(principal.role)
        if for_s is None:
            return min(self.config.lease_s, most)
        if for_s > most:
            role = principal.role.name.lower()
            raise LeaseTooLongError(user=principal.user, role=role, most=f"{most:g}", field="for_s")
        return for_s

    async def _stand_by(self) -> None:
        log.info("standing by; %s leads", self.leadership.holder or "nobody")
        while not self.leads:
            await self.leadership.wait()
            try:
                await self._take_over()
            except (StoreError, NotLeaderError) as error:
                log.error("cannot take over: %s", error)
                await self.leadership.leave()
                await asyncio.sleep(1)

    async def _take_over(self) -> None:
        """Read the database. No lease ends by a restart or a new leader, and the grace clocks begin anew."""
        contents = await self.record.load()
        if contents.now is not None:
            self.clock.set(contents.now)
        now, today = time.monotonic(), self.clock.now()
        self.index.out_of_service = dict(contents.out_of_service)
        self.index.gone = dict(contents.gone)
        hosts = {device.worker for device in contents.devices} | {lease.worker for lease in contents.leases}
        for worker in contents.workers:
            if worker.state is WorkerState.DEAD and worker.name not in hosts:
                continue  # all its devices were deleted; its row stays for the history of leases
            if worker.state is WorkerState.ONLINE:
                self.lines.expected.add(worker.name)
            state = WorkerState.DEAD if worker.state is WorkerState.DEAD else WorkerState.UNREACHABLE
            self.index.workers[worker.name] = replace(worker, state=state)
        for device in contents.devices:
            lost = device.state is DeviceState.RESERVED  # unless one of the leases below says so
            now_is = DeviceState.AWAIT_FLASH_DEFAULT if lost else device.state
            self.index.devices[device.serial] = replace(device, state=now_is)
        for lease in contents.leases:
            left_s = left_after_restart((lease.until - today).total_seconds(), self.terms)
            idle_since = now if lease.had_socket else None
            lease = replace(lease, until=today + timedelta(seconds=left_s))
            self.index.add(Holding(lease, now + left_s, idle_since=idle_since, noted=lease.had_socket))
        self.record.audit(Entry("leader", self.leadership.name, detail=f"epoch {self.leadership.epoch}"))
        self.leads = True
        self._changed()
        self.leading.publish(True)

    async def _lead(self) -> None:
        """Keep the clocks until another control leads."""
        async with self.background:
            for worker in self.index.workers.values():
                if worker.state is not WorkerState.DEAD:
                    self.lines.unreachable(worker.name)
            async with asyncio.TaskGroup() as group:
                work = {
                    "flush": self.record.keep_flushed(),
                    "clock": self.upkeep.tick(),
                    "retention": self.upkeep.prune(),
                    "settle": self.lines.settle(SETTLE_S),
                }
                tasks = [group.create_task(one, name=name) for name, one in work.items()]
                await self.leadership.hold()
                for task in tasks:
                    task.cancel()

    async def _step_down(self) -> None:
        """Forget everything: the other control knows better from now on."""
        self.leads = False
        self.leadership.stand_by()
        self.leading.publish(False)
        async with self.record.lock:  # what holds it relies on the index; nothing of it can be written any more
            self.queue.clear()
            self.reservations.forget()
            self.lines.clear()
            self.record.clear()
        self._changed()

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

    async def verify_audit(self, principal: Principal) -> chain.Verdict:
        """Walk the audit log's chain to its first bad line."""
        authorize(principal, Role.OPERATOR, "checking the audit log")
        await self.record.flush()
        walk = chain.Walk()
        while (verdict := await self.store.transact(walk.step)) is None:
            pass
        return verdict

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
        return self.whose_hash(hash_token(token))

    def whose_hash(self, hashed: str) -> Principal | None:
        """Return whose token has this hash: a session keeps that much of the token it was opened with."""
        return self._tokens.get(hashed)

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
        self._tokens = await self.store.read(tokens.everybody)

    async def _watch_tokens(self) -> None:
        while True:
            await asyncio.sleep(TOKENS_S)
            try:
                await self.refresh_tokens()
            except StoreError as error:
                log.error("tokens are as they were, the database does not answer: %s", error)

    def _changed(self) -> None:
        """Devices, leases or workers have changed: plan anew, and tell when the number of free ones has."""
        self.queue.changed()
        amount = len(self.queue.free())
        if amount != self.amount:
            self.amount = amount
            self.events.publish(say.available(amount))
