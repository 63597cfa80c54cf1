"""Take, extend and end leases: database first, then memory, then the worker and the holder are told."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from fieldstation.core import log as logs
from fieldstation.core.errors import FieldstationError
from fieldstation.core.events import Publisher
from fieldstation.core.security import hash_token, new_token
from fieldstation.fleet.control import told as say
from fieldstation.fleet.control.background import Background
from fieldstation.fleet.control.index import Holding
from fieldstation.fleet.control.record import Record
from fieldstation.fleet.errors import WorkerUnreachableError
from fieldstation.fleet.model import Holder, Lease
from fieldstation.fleet.model import Row as ReservedRow
from fieldstation.fleet.schedule import Want
from fieldstation.fleet.store import ledger
from fieldstation.fleet.store.ledger import Entry

log = logging.getLogger(__name__)

LEASE_PREFIX = "fsl_"

# How control says something to a worker and waits for its answer: (worker, event, argument, limit in seconds).
# WorkerUnreachableError when there is no line or no answer; FieldstationError when the worker says no.
Call = Callable[[str, str, Mapping[str, Any], float], Awaitable[Mapping[str, Any]]]


class Leases:
    """All changes of leases. Callers have authorised who acts."""

    def __init__(
        self,
        record: Record,
        call: Call,
        publisher: Publisher[say.News],
        background: Background,
        changed: Callable[[], None],
        now: Callable[[], datetime],
        *,
        assign_wait_s: float,
    ) -> None:
        self.record = record
        self.index = record.index
        self.call = call
        self.publisher = publisher
        self.background = background
        self.changed = changed
        self.now = now
        self.assign_wait_s = assign_wait_s

    async def take(
        self, want: Want, serials: Sequence[str], args: Mapping[str, Any], length_s: float, ticket: str | None = None
    ) -> list[ReservedRow]:
        """Lease free devices. The caller holds `record.lock`, chose them under it, and calls `deliver` after it."""
        await self.record.settle_doubts()
        index = self.index
        by_worker: dict[str, dict[str, int]] = {}
        for device in index.known(serials):
            by_worker.setdefault(device.worker, {})[device.serial] = device.fence + 1
        until = self.now() + timedelta(seconds=length_s)
        had_socket = index.clients[want.holder] > 0
        leases: list[Lease] = []
        rows: dict[str, ReservedRow] = {}
        for worker, fences in by_worker.items():
            token = new_token(LEASE_PREFIX)
            leases.append(
                Lease(
                    uuid.uuid4().hex,
                    hash_token(token),
                    want.holder,
                    worker,
                    want.kind,
                    args,
                    fences,
                    until,
                    had_socket,
                    ticket,
                )
            )
            url = index.workers[worker].url
            rows |= {
                serial: ReservedRow(serial, url, token, fence, until, length_s) for serial, fence in fences.items()
            }
        entry = Entry("reserve", ",".join(serials), want.holder.user, want.holder.client, want.kind)
        await self.record.commit(lambda connection: ledger.take(connection, leases), [entry])
        self.record.counts.reserved += len(serials)
        deadline = time.monotonic() + length_s
        for lease in leases:
            holding = Holding(lease, deadline, noted=had_socket)
            if had_socket and not index.connected(holding):  # it closed while we wrote
                holding.idle_since = time.monotonic()
            index.add(holding)
            about = {"fields": {"lease": lease.id}}
            log.info("%s reserved for %s, for %g s", ", ".join(lease.fences), _who(want.holder), length_s, extra=about)
        self.publisher.publish(say.Leased(want.holder, frozenset(serials)))
        self.changed()
        return [rows[serial] for serial in serials]

    async def deliver(self, rows: Sequence[ReservedRow]) -> None:
        """Have the workers switch the devices, before the holder is told; if one does not, nobody keeps any."""
        serials = [row.serial for row in rows]
        ids = dict.fromkeys(self.index.lease_of[serial] for serial in serials if serial in self.index.lease_of)
        holdings = [self.index.holdings[lease] for lease in ids]
        outcomes = await asyncio.gather(*(self._assign(holding) for holding in holdings), return_exceptions=True)
        problems = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if not problems and all(serial in self.index.lease_of for serial in serials):
            return
        await self.end(serials, "the worker did not take the reservation", tell=())
        if not problems:
            raise WorkerUnreachableError(worker="of the reserved device", what="the reservation")
        raise problems[0]

    async def _assign(self, holding: Holding) -> None:
        lease = holding.lease
        with logs.context(lease=lease.id):
            answer = await self.call(lease.worker, "assign", self.as_line(holding), self.assign_wait_s)
        refused = answer.get("refused")
        if isinstance(refused, Mapping) and refused:
            reasons = "; ".join(f"{serial}: {reason}" for serial, reason in refused.items())
            raise WorkerUnreachableError(
                f"The worker {lease.worker} refused the reservation ({reasons}); nothing was reserved.",
                worker=lease.worker,
            )

    def as_line(self, holding: Holding) -> dict[str, Any]:
        """Return a lease as the line between control and worker carries it."""
        lease = holding.lease
        return {
            "id": lease.id,
            "token_hash": lease.token_hash,
            "user": lease.holder.user,
            "client": lease.holder.client,
            "kind": lease.kind,
            "args": dict(lease.args),
            "fences": dict(lease.fences),
            "for_s": max(0.0, holding.deadline - time.monotonic()),
        }

    async def extend(self, serials: Iterable[str], by: Holder, length_s: float) -> None:
        """Let the leases on `serials` end `length_s` from now; one that ends later anyway stays as it is."""
        async with self.record.lock:
            deadline = time.monotonic() + length_s
            found = {self.index.lease_of[serial]: serial for serial in serials if serial in self.index.lease_of}
            ids = [lease for lease in found if self.index.holdings[lease].deadline < deadline]
            if not ids:
                return
            until = self.now() + timedelta(seconds=length_s)
            wanted = [serial for serial in serials if self.index.lease_of.get(serial) in ids]
            entry = Entry("extend", ",".join(wanted), by.user, by.client, f"for {length_s:g} s")
            await self.record.commit(lambda connection: ledger.extend(connection, ids, until), [entry])
            for lease in ids:
                holding = self.index.holdings[lease]
                holding.lease = replace(holding.lease, until=until)
                holding.deadline, holding.warned_at = deadline, None
        for lease in ids:
            if (extended := self.index.holdings.get(lease)) is not None:
                log.info("extended by %s, to %g s from now", _who(by), length_s, extra={"fields": {"lease": lease}})
                self._inform(extended.lease.worker, "extend", {"lease": lease, "for_s": length_s})

    async def end(
        self,
        serials: Iterable[str],
        reason: str,
        *,
        tell: Sequence[str] = (say.END,),
        by: Holder | None = None,
        release: bool = True,
    ) -> list[str]:
        """End the leases on `serials` and send the holders the events `tell`; returns what was ended.

        Without `release` the worker is not told (it knows, or has gone). A database that fails changes nothing.
        """
        async with self.record.lock:
            ended: dict[str, list[str]] = {}
            for serial in dict.fromkeys(serials):
                if serial in self.index.lease_of:
                    ended.setdefault(self.index.lease_of[serial], []).append(serial)
            if not ended:
                return []
            everything = [serial for group in ended.values() for serial in group]
            over = [id_ for id_, group in ended.items() if set(self.index.holdings[id_].lease.fences) <= set(group)]
            who = by or Holder("control", "")
            entry = Entry("end", ",".join(everything), who.user, who.client, reason)
            await self.record.commit(lambda connection: ledger.end(connection, everything, over, reason), [entry])
            holdings = [(self.index.holdings[lease], group) for lease, group in ended.items()]
            fences = {serial: holding.lease.fences[serial] for holding, group in holdings for serial in group}
            for holding, group in holdings:
                self.index.remove(holding, group)
            self.record.changed_devices(everything)
            self.record.counts.end(len(everything), reason)
        for holding, group in holdings:
            mark = {"fields": {"lease": holding.lease.id}}
            log.info("%s ended for %s: %s", ", ".join(group), _who(holding.lease.holder), reason, extra=mark)
            for serial in group if tell else ():
                # The fence tells a holder that has the device again whether this word is about its lease of now.
                about = {"reason": reason, "fence": fences[serial]}
                items = ({"event": item, **about} for item in tell)
                self.publisher.publish(say.told(holding.lease.holder, serial, *items))
            if release:
                argument = {"lease": holding.lease.id, "serials": group, "reason": reason}
                self._inform(holding.lease.worker, "release", argument)
        self.changed()
        return everything

    def _inform(self, worker: str, event: str, argument: Mapping[str, Any]) -> None:
        """Tell a worker in the background. Should it not hear, its next hello sets it right."""

        async def inform() -> None:
            try:
                await self.call(worker, event, argument, 15.0)
            except FieldstationError as error:
                about = {"fields": {"lease": argument["lease"]}}
                log.warning("%s to worker %s: %s", event, worker, error, extra=about)

        self.background.start(inform(), f"{event} to {worker}")


def _who(holder: Holder) -> str:
    return f"{holder.client} ({holder.user})"
