"""The tables. All names begin with `fleet_`: today's iCEFARM installation may live in the same database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)


class UtcTime(TypeDecorator[datetime]):
    """A moment: stored in UTC, read back with its zone (SQLite forgets zones)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn any zone into UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Put the zone back."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Words(TypeDecorator[str]):
    """Text as every database can keep it: without NUL, which PostgreSQL refuses. A line that could never be written
    would be tried again with every transaction, and keep all others from being written."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Leave out what cannot be kept."""
        return None if value is None else storable(value)


def storable(text: str) -> str:
    """Return `text` as it will be read back."""
    return text.replace("\x00", "")


metadata = MetaData()

worker = Table(
    "fleet_worker",
    metadata,
    Column("name", Words, primary_key=True),
    Column("url", Words, nullable=False),
    Column("version", Words, nullable=False),
    Column("kinds", JSON, nullable=False),
    Column("boot", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("seen_at", UtcTime),
)

device = Table(
    "fleet_device",
    metadata,
    Column("serial", Words, primary_key=True),
    Column("worker", Words, ForeignKey("fleet_worker.name"), nullable=False),
    Column("driver", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("health", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("kinds", JSON, nullable=False),
    Column("labels", JSON, nullable=False, server_default="{}"),
    Column("fence", BigInteger, nullable=False),
)

# The highest fencing number of each device that is gone: one that comes back goes on from there, whatever its worker
# says, which may have died before it heard of the last lease.
gone = Table(
    "fleet_gone",
    metadata,
    Column("serial", Words, primary_key=True),
    Column("fence", BigInteger, nullable=False),
)

lease = Table(
    "fleet_lease",
    metadata,
    Column("id", Words, primary_key=True),
    Column("token_hash", Words, nullable=False, unique=True),
    Column("user", Words, nullable=False),
    Column("client", Words, nullable=False),
    Column("worker", Words, ForeignKey("fleet_worker.name"), nullable=False),
    Column("kind", Words, nullable=False),
    Column("args", JSON, nullable=False),
    Column("until", UtcTime, nullable=False),
    Column("had_socket", Boolean, nullable=False),
    Column("taken_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("end_reason", Words),
    Column("ticket", Words),
)
Index("fleet_lease_open", lease.c.ended_at)

# One row per reserved device: the primary key is what makes it impossible to lease a device twice.
reservation = Table(
    "fleet_reservation",
    metadata,
    Column("serial", Words, ForeignKey("fleet_device.serial"), primary_key=True),
    Column("lease", Words, ForeignKey("fleet_lease.id"), nullable=False, index=True),
    Column("fence", BigInteger, nullable=False),
)

token = Table(
    "fleet_token",
    metadata,
    Column("hash", Words, primary_key=True),
    Column("user", Words, nullable=False),
    Column("role", Words, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

# One row. The epoch is its key, so that a new leader's change of it waits for transactions that have checked it.
leader = Table(
    "fleet_leader",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("holder", Words, nullable=False),
    Column("beat", BigInteger, nullable=False),
)

# Devices that are offered to nobody until an operator puts them back. Kept by serial: one may be unplugged meanwhile.
out_of_service = Table(
    "fleet_out_of_service",
    metadata,
    Column("serial", Words, primary_key=True),
    Column("health", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("user", Words, nullable=False),
    Column("since", UtcTime, nullable=False),
)

# What was done for a device that failed; the newest lines of each device are kept.
history = Table(
    "fleet_history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", UtcTime, nullable=False),
    Column("serial", Words, nullable=False),
    Column("worker", Words, nullable=False),
    Column("user", Words, nullable=False),
    Column("step", Words, nullable=False),
    Column("detail", Words, nullable=False),
)
Index("fleet_history_serial", history.c.serial, history.c.id)

# Append-only: who did what to what, and when.
audit = Table(
    "fleet_audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", UtcTime, nullable=False),
    Column("user", Words, nullable=False),
    Column("client", Words, nullable=False),
    Column("action", Words, nullable=False),
    Column("target", Words, nullable=False),
    Column("detail", Words, nullable=False),
    Column("previous", Words, nullable=False, server_default=""),
    Column("hash", Words, nullable=False, server_default=""),
)
Index("fleet_audit_at", audit.c.at)

# One row: the first line that is in the chain, and the last one with its hash. Who appends holds it.
audit_head = Table(
    "fleet_audit_head",
    metadata,
    Column("first", BigInteger, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("hash", Words, nullable=False),
)
