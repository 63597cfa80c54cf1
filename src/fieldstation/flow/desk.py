"""The one service that owns the approvals: everything that changes a record goes through here, in one transaction."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from fieldstation.core.errors import StoreError
from fieldstation.core.events import Publisher
from fieldstation.flow import approval as rules
from fieldstation.flow import store
from fieldstation.flow.errors import ApprovalClosedError, ApprovalUnknownError, BadRequestError
from fieldstation.flow.model import Answer, Approval, State, Word, digest_of

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ACTION_CHARACTERS = 100_000
LONGEST = timedelta(days=90)
_SWEEP_S = 1.0


Witness = Callable[[Connection, Approval, str, str, Mapping[str, Any]], None]  # who did what, and the details


class Database(Protocol):
    """What runs a function of a connection in one transaction; the control's store does."""

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, on disk when this returns."""


class Desk:
    """Ask, answer, take back, use. `changes` publishes every record that changed, after it is on disk."""

    name = "approvals"

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        witness: Witness = lambda connection, approval, who, what, details: None,
    ) -> None:
        """`witness` hears of every change in its own transaction: it may write into a log that others keep."""
        self._database = database
        self._witness = witness
        self._clock = clock
        self.changes: Publisher[Approval] = Publisher()

    # -- life: core.service.Service

    async def start(self) -> None:
        """Make the tables."""
        await self._database.transact(store.prepare)

    async def run(self) -> None:
        """Close what nobody answered in time, until cancelled."""
        while True:
            try:
                await self.sweep()
            except StoreError as error:  # the database may be away for a while
                log.error("looking for expired approvals failed, trying again: %s", error)
            except Exception:
                log.exception("looking for expired approvals failed; trying again")
            await asyncio.sleep(_SWEEP_S)

    async def stop(self) -> None:
        """Nothing to let go of: the database belongs to the control."""

    def health(self) -> dict[str, object]:
        """Say how it is."""
        return {"ok": True}

    # -- what people and flows do

    async def ask(
        self,
        *,
        title: str,
        action: Mapping[str, Any],
        requester: str,
        reason: str = "",
        approvers: Sequence[str] = (),
        quorum: int = 1,
        own_answer: bool = True,
        expires_in_s: float = 3600.0,
        key: str | None = None,
    ) -> Approval:
        """Store a request and return it. With the same `key` (say, a flow run's id) a repeat finds the first one."""
        if not title.strip():
            raise BadRequestError(field="title", problem="it is empty")
        if not 0 < expires_in_s <= LONGEST.total_seconds():
            raise BadRequestError(field="expires_in_s", problem=f"it is not within 0 and {LONGEST.days} days")
        named = tuple(dict.fromkeys(approvers))
        if quorum < 1 or (named and quorum > len(named)):
            raise BadRequestError(
                field="quorum", problem=f"{quorum} cannot be reached by {len(named) or 'no'} approvers"
            )
        if len(str(dict(action))) > MAX_ACTION_CHARACTERS:
            raise BadRequestError(field="action", problem=f"it is longer than {MAX_ACTION_CHARACTERS} characters")
        try:
            digest = digest_of(action)
        except (TypeError, ValueError) as error:
            raise BadRequestError(field="action", problem=error) from error
        now = self._clock()
        asked = Approval(
            id=_identity(key),
            title=title,
            action=dict(action),
            digest=digest,
            requester=requester,
            created_at=now,
            expires_at=now + timedelta(seconds=expires_in_s),
            reason=reason,
            approvers=named,
            quorum=quorum,
            own_answer=own_answer,
        )

        def work(connection: Connection) -> tuple[Approval, bool]:
            if (there := store.get(connection, asked.id)) is not None:
                if there.digest != digest:
                    raise BadRequestError(field="key", problem="it was used for another action already")
                return there, False
            store.add(connection, asked)
            self._witness(connection, asked, requester, "asked", {"digest": digest})
            return asked, True

        stored, is_new = await self._database.transact(work)
        if is_new:
            self.changes.publish(stored)
        return stored

    async def answer(self, identity: str, who: str, word: Word, through: str, comment: str = "") -> Approval:
        """Add one person's answer; the first valid one that decides wins, whoever else is on the way."""
        answer = Answer(who, word, through, self._clock(), comment)
        details = {"through": through, "comment": comment}
        return await self._move(identity, who, word.value, details, lambda a: rules.answered(a, answer))

    async def cancel(self, identity: str, who: str) -> Approval:
        """Take a request back."""
        return await self._move(identity, who, "cancel", {}, lambda a: rules.cancelled(a, self._clock()))

    async def use(self, identity: str, digest: str, who: str) -> Approval:
        """Mark as used, once, by what has exactly this digest: the executor calls this right before it runs."""
        return await self._move(
            identity, who, "use", {"digest": digest}, lambda a: rules.used(a, digest, self._clock())
        )

    async def note(self, identity: str, who: str, what: str, details: dict[str, Any]) -> None:
        """Append to the audit what became of it (such as the exit code of what ran)."""

        def work(connection: Connection) -> None:
            found = store.get(connection, identity)
            if found is None:
                raise ApprovalUnknownError(id=identity)
            store.note(connection, found, self._clock(), who, what, details)
            self._witness(connection, found, who, what, details)

        await self._database.transact(work)

    async def get(self, identity: str) -> Approval:
        """Return one approval."""
        found = await self._database.transact(lambda c: store.get(c, identity))
        if found is None:
            raise ApprovalUnknownError(id=identity)
        return found

    async def wait(self, identity: str, seconds: float) -> Approval:
        """Return it once it is no longer pending, or after `seconds` as it is then."""
        changed = asyncio.Event()
        end = self.changes.subscribe(lambda a: changed.set() if a.id == identity else None)
        try:
            async with asyncio.timeout(seconds):
                while (found := await self.get(identity)).is_open:
                    await changed.wait()
                    changed.clear()
                return found
        except TimeoutError:
            return await self.get(identity)
        finally:
            end()

    async def listing(self, state: State | None = None) -> list[Approval]:
        """Return the newest first."""
        return await self._database.transact(lambda c: store.listing(c, state))

    async def trail(self, identity: str) -> list[dict[str, Any]]:
        """Return the audit of one approval."""
        await self.get(identity)
        return await self._database.transact(lambda c: store.trail(c, identity))

    async def sweep(self) -> list[Approval]:
        """Close the approvals whose time is over; returns them."""
        now = self._clock()
        closed = []
        for found in await self._database.transact(lambda c: store.due(c, now)):
            try:
                closed.append(await self._move(found.id, "clock", "expire", {}, lambda a: rules.expired(a, now)))
            except ApprovalClosedError:
                continue  # somebody answered a moment earlier
        return closed

    async def unshown(self) -> list[Approval]:
        """Return approvals whose views (Slack messages) do not show the record as it is."""
        return await self._database.transact(store.unshown)

    async def shown(self, approval: Approval, channel: dict[str, str]) -> None:
        """Note that a view shows this version."""
        await self._database.transact(lambda c: store.set_shown(c, approval, channel))

    async def _move(
        self,
        identity: str,
        who: str,
        what: str,
        details: dict[str, Any],
        rule: Callable[[Approval], Approval | None],
    ) -> Approval:
        def work(connection: Connection) -> Approval:
            before = store.get(connection, identity, lock=True)
            if before is None:
                raise ApprovalUnknownError(id=identity)
            after = rule(before)
            if after is None or not store.change(connection, before, after):
                raise ApprovalClosedError(id=identity, state=before.state)
            store.note(
                connection, after, after.changed_at or self._clock(), who, what, details | {"state": after.state}
            )
            self._witness(connection, after, who, what, details)
            return after

        after = await self._database.transact(work)
        log.info("approval %s: %s by %s, now %s", identity, what, who, after.state)
        self.changes.publish(after)
        return after


def _identity(key: str | None) -> str:
    if key is None:
        return "a-" + secrets.token_hex(8)
    return "k-" + digest_of({"key": key})[:32]
