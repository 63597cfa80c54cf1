"""Statements on devices' histories and on devices out of service. Each function is part of somebody's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from fieldstation.fleet.model import Health, OutOfService, Step
from fieldstation.fleet.store.tables import history, out_of_service


def read_out_of_service(connection: Connection) -> dict[str, OutOfService]:
    """Load all devices that are out of service, by serial."""
    rows = connection.execute(select(out_of_service))
    return {row.serial: OutOfService(Health(row.health), row.reason, row.user, row.since) for row in rows}


def write_out_of_service(connection: Connection, changes: Mapping[str, OutOfService | None]) -> None:
    """Take devices out of service, or put them back (None)."""
    if not changes:
        return
    connection.execute(delete(out_of_service).where(out_of_service.c.serial.in_(changes)))
    rows = [
        {
            "serial": serial,
            "health": out.health.value,
            "reason": out.reason,
            "user": out.user,
            "since": out.since or datetime.now(UTC),
        }
        for serial, out in changes.items()
        if out is not None
    ]
    if rows:
        connection.execute(insert(out_of_service), rows)


def write_steps(connection: Connection, steps: Iterable[Step], keep: int) -> None:
    """Append to devices' histories, and drop all but the newest `keep` lines of each device."""
    rows = [asdict(step) for step in steps]
    if not rows:
        return
    connection.execute(insert(history), rows)
    for serial in {row["serial"] for row in rows}:
        mine = history.c.serial == serial
        newest = select(history.c.id).where(mine).order_by(history.c.id.desc()).offset(keep).limit(1)
        oldest_to_go = connection.execute(newest).scalar()
        if oldest_to_go is not None:
            connection.execute(delete(history).where(mine, history.c.id <= oldest_to_go))


def read_history(connection: Connection, serial: str, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """Return the newest `limit` lines of one device's history, newest first; `before` pages on by id."""
    query = select(history).where(history.c.serial == serial).order_by(history.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(history.c.id < before)
    return [{**row, "at": row["at"].isoformat()} for row in connection.execute(query).mappings()]
