"""What is kept for how long: the audit log, and leases that have ended. Each function is part of a transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select

from fieldstation.fleet.store import ledger, tables

AT_ONCE = 2000  # rows; others wait while they are deleted


def prune_audit(connection: Connection, before: datetime) -> bool:
    """Delete the oldest lines of the audit log, those from `before`; tells whether there are more.

    Always a stretch from its beginning, without a gap, and the log says so itself. Append-only otherwise: nothing in
    it is ever changed.
    """
    column = tables.audit.c
    first = connection.execute(select(func.min(column.id)).where(column.at >= before)).scalar()
    old = select(column.id).order_by(column.id).limit(AT_ONCE)
    if first is not None:
        old = old.where(column.id < first)
    ids = list(connection.execute(old).scalars())
    if not ids:
        return False
    connection.execute(delete(tables.audit).where(column.id <= ids[-1]))
    ledger.write_audit(connection, [ledger.Entry("audit pruned", f"{ids[0]}-{ids[-1]}", detail=f"older than {before}")])
    return len(ids) == AT_ONCE


def prune_leases(connection: Connection, before: datetime) -> bool:
    """Delete leases that ended before; tells whether there are more."""
    column = tables.lease.c
    ids = list(connection.execute(select(column.id).where(column.ended_at < before).limit(AT_ONCE)).scalars())
    if ids:
        connection.execute(delete(tables.lease).where(column.id.in_(ids)))
    return len(ids) == AT_ONCE
