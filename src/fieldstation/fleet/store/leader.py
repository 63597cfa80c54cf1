"""Who leads: one row with an epoch that only grows. Each function is part of somebody's transaction.

No clock is stored: a leader counts its `beat` up, and who waits measures on its own clock how long it stood still.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from fieldstation.fleet.errors import NotLeaderError
from fieldstation.fleet.store import ledger
from fieldstation.fleet.store.tables import leader as table

# A leader frozen inside a transaction must not keep the next one waiting; one on a busy machine must get through.
IDLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Seat:
    """The row. `holder` is the leader's `host:port`, empty when it has left."""

    epoch: int
    holder: str
    beat: int


def look(connection: Connection) -> Seat:
    """Return who leads."""
    row = connection.execute(select(table)).one()
    return Seat(row.epoch, row.holder, row.beat)


def take(connection: Connection, seen: Seat, holder: str) -> int | None:
    """Lead from now on, if the row is still as it was seen; returns the new epoch. Waits for guarded transactions
    that are under way, so what they write is there to be loaded."""
    same = (table.c.epoch == seen.epoch) & (table.c.holder == seen.holder) & (table.c.beat == seen.beat)
    done = connection.execute(update(table).where(same).values(epoch=seen.epoch + 1, holder=holder, beat=0))
    return seen.epoch + 1 if done.rowcount == 1 else None


def beat(connection: Connection, epoch: int) -> datetime | None:
    """Tell that the leader of this epoch lives; returns PostgreSQL's time, None when another one leads."""
    done = connection.execute(update(table).where(table.c.epoch == epoch).values(beat=table.c.beat + 1))
    return ledger.now(connection) if done.rowcount == 1 else None


def leave(connection: Connection, epoch: int) -> None:
    """Lead no more: the next may begin at once."""
    connection.execute(update(table).where(table.c.epoch == epoch).values(holder=""))


def check(connection: Connection, epoch: int) -> None:
    """Raise NotLeaderError unless this epoch leads, and let nobody take over before the transaction has ended.

    PostgreSQL: FOR KEY SHARE goes with the leader's own beats and stops only a change of the epoch. SQLite has one
    writer anyway.
    """
    wanted: list[ColumnElement[Any]] = [table.c.epoch, table.c.holder]
    if connection.dialect.name == "postgresql":
        wanted.append(func.set_config("idle_in_transaction_session_timeout", f"{IDLE_S * 1000:.0f}", True))
    row = connection.execute(select(*wanted).with_for_update(read=True, key_share=True)).one()
    if row.epoch != epoch:
        raise NotLeaderError(leader=row.holder or "another control", epoch=row.epoch)
