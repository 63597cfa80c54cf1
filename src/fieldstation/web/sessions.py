"""Who is logged in: sessions in the control's database, so that a restart logs nobody out.

The cookie is random; stored are its hash and the hash of the token it was opened with. A session ends with its time,
with a logout, and with its token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, select

from fieldstation.core.security import Principal, hash_token, new_token

T = TypeVar("T")

PREFIX = "fss_"
LOOK_AGAIN_S = 0.5  # an unknown cookie makes us ask the database, but not at every request
MANY_UNKNOWN = 10_000

metadata = MetaData()

table = Table(
    "web_session",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("token_hash", String(64), nullable=False),
    Column("ends_at", String(40), nullable=False),  # ISO 8601 in UTC: sorts as time
)


class Database(Protocol):
    """What runs a function of a connection in one transaction; the control's store does."""

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, on disk when this returns."""


class Sessions:
    """Open, find and end sessions. `whose_hash` tells which user a token's hash belongs to now, if any."""

    def __init__(
        self,
        database: Database,
        whose_hash: Callable[[str], Principal | None],
        *,
        hours: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._whose_hash = whose_hash
        self._hours = hours
        self._clock = clock
        self._known: dict[str, tuple[str, datetime]] = {}  # hash of the cookie -> hash of the token, end
        self._unknown: dict[str, float] = {}

    async def prepare(self) -> None:
        """Make the table, drop what is over, read the rest."""
        now = self._clock()

        def work(connection: Connection) -> None:
            metadata.create_all(connection)
            connection.execute(delete(table).where(table.c.ends_at <= _text(now)))

        await self._database.transact(work)
        await self._read()

    async def open(self, token: str) -> str:
        """Start a session for who has `token`, and return its cookie."""
        cookie, ends = new_token(PREFIX), self._clock() + timedelta(hours=self._hours)
        row = {"hash": hash_token(cookie), "token_hash": hash_token(token), "ends_at": _text(ends)}
        await self._database.transact(lambda connection: connection.execute(insert(table).values(**row)))
        self._known[row["hash"]] = row["token_hash"], ends
        return cookie

    async def whose(self, cookie: str) -> Principal | None:
        """Return who is logged in with this cookie, with the role they have now; None when nobody is."""
        hashed = hash_token(cookie)
        if hashed not in self._known and self._may_look(hashed):
            await self._read()  # another control on the same database may have opened it
        token, ends = self._known.get(hashed, ("", self._clock()))
        if ends <= self._clock():
            self._known.pop(hashed, None)
            return None
        return self._whose_hash(token)

    async def end(self, cookie: str) -> None:
        """Log out."""
        hashed = hash_token(cookie)
        self._known.pop(hashed, None)
        await self._database.transact(
            lambda connection: connection.execute(delete(table).where(table.c.hash == hashed))
        )

    def _may_look(self, hashed: str) -> bool:
        now = time.monotonic()
        if now - self._unknown.get(hashed, -LOOK_AGAIN_S) < LOOK_AGAIN_S:
            return False
        if len(self._unknown) >= MANY_UNKNOWN:
            self._unknown.clear()
        self._unknown[hashed] = now
        return True

    async def _read(self) -> None:
        query = select(table).where(table.c.ends_at > _text(self._clock()))
        rows = await self._database.transact(lambda connection: connection.execute(query).all())
        self._known = {row.hash: (row.token_hash, datetime.fromisoformat(row.ends_at)) for row in rows}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
