"""Approvals and their audit in the control's database (SQLAlchemy Core): functions of one connection.

Its tables are made when they are missing; `flow_schema` holds their version, so that a newer one is refused.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, Index, Integer, MetaData, String, Table, Text, insert, select, update

from fieldstation.core.errors import SchemaTooNewError
from fieldstation.flow.codec import from_json, to_json
from fieldstation.flow.model import Approval, State

SCHEMA = 1

metadata = MetaData()

schema = Table("flow_schema", metadata, Column("version", Integer, nullable=False))

approvals = Table(
    "flow_approval",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("expires_at", String(40), nullable=False),  # ISO 8601 in UTC: sorts as time
    Column("version", Integer, nullable=False),
    Column("record", Text, nullable=False),  # the approval as the API shows it
    Column("channel", Text, nullable=False),  # where views of it stand
    Column("viewed", Integer, nullable=False),  # the version the views show
    Index("flow_approval_state", "state", "expires_at"),
)

# Append-only: nothing here is ever updated or deleted.
audit = Table(
    "flow_audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("approval", String(40), nullable=False, index=True),
    Column("at", String(40), nullable=False),
    Column("who", String(200), nullable=False),
    Column("what", String(40), nullable=False),
    Column("details", Text, nullable=False),
)


def prepare(connection: Connection) -> None:
    """Make the tables that are missing."""
    metadata.create_all(connection)
    found = connection.execute(select(schema.c.version)).scalar()
    if found is None:
        connection.execute(insert(schema).values(version=SCHEMA))
    elif found > SCHEMA:
        raise SchemaTooNewError(path="of the approvals", found=found, known=SCHEMA)


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _record(row: Any) -> Approval:
    import dataclasses

    return dataclasses.replace(from_json(json.loads(row.record)), channel=json.loads(row.channel))


def add(connection: Connection, approval: Approval) -> None:
    """Store a new approval and note it."""
    connection.execute(
        insert(approvals).values(
            id=approval.id,
            state=approval.state.value,
            expires_at=_utc(approval.expires_at),
            version=approval.version,
            record=json.dumps(to_json(approval)),
            channel="{}",
            viewed=-1,
        )
    )
    note(connection, approval, approval.created_at, approval.requester, "asked", {"digest": approval.digest})


def get(connection: Connection, identity: str, *, lock: bool = False) -> Approval | None:
    """Return one approval; `lock` keeps others from changing it until the transaction ends."""
    query = select(approvals).where(approvals.c.id == identity)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return _record(row) if row is not None else None


def change(connection: Connection, before: Approval, after: Approval) -> bool:
    """Store `after` if the record is still `before`; False when somebody was faster."""
    done = connection.execute(
        update(approvals)
        .where(approvals.c.id == before.id, approvals.c.version == before.version)
        .values(state=after.state.value, version=after.version, record=json.dumps(to_json(after)))
    )
    return bool(done.rowcount == 1)


def note(
    connection: Connection, approval: Approval, at: datetime, who: str, what: str, details: dict[str, Any]
) -> None:
    """Append one line to the audit."""
    connection.execute(
        insert(audit).values(approval=approval.id, at=_utc(at), who=who, what=what, details=json.dumps(details))
    )


def listing(connection: Connection, state: State | None = None, limit: int = 200) -> list[Approval]:
    """Return the newest approvals first, of one state or all."""
    query = select(approvals)
    if state is not None:
        query = query.where(approvals.c.state == state.value)
    rows = connection.execute(query.order_by(approvals.c.expires_at.desc()).limit(limit))
    return sorted((_record(row) for row in rows), key=lambda a: a.created_at, reverse=True)


def due(connection: Connection, now: datetime) -> list[Approval]:
    """Return the pending approvals whose time is over."""
    query = select(approvals).where(approvals.c.state == State.PENDING.value, approvals.c.expires_at <= _utc(now))
    return [_record(row) for row in connection.execute(query)]


def trail(connection: Connection, identity: str) -> list[dict[str, Any]]:
    """Return the audit of one approval, oldest first."""
    rows = connection.execute(select(audit).where(audit.c.approval == identity).order_by(audit.c.number))
    return [{"at": r.at, "who": r.who, "what": r.what, "details": json.loads(r.details)} for r in rows]


def unshown(connection: Connection) -> list[Approval]:
    """Return approvals whose views are behind the record."""
    rows = connection.execute(select(approvals).where(approvals.c.viewed < approvals.c.version))
    return [_record(row) for row in rows]


def set_shown(connection: Connection, approval: Approval, channel: dict[str, str]) -> None:
    """Note where the view of this version stands."""
    connection.execute(
        update(approvals)
        .where(approvals.c.id == approval.id)
        .values(channel=json.dumps(channel), viewed=approval.version)
    )
