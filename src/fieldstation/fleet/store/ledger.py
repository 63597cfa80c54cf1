"""Statements on devices, workers and leases. Each function is part of somebody's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from fieldstation.fleet.errors import DeviceBusyError
from fieldstation.fleet.model import Device, DeviceState, Health, Holder, Lease, OutOfService, Worker, WorkerState
from fieldstation.fleet.store import care, chain, tables


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the audit log."""

    action: str
    target: str
    user: str = "control"
    client: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a starting control needs to know."""

    workers: list[Worker]
    devices: list[Device]
    leases: list[Lease]
    out_of_service: dict[str, OutOfService]
    gone: dict[str, int]  # the last fencing numbers of devices that are gone
    now: datetime | None = None  # by PostgreSQL's clock, which two controls share


def read(connection: Connection) -> Contents:
    """Load workers, devices and the leases that have not ended."""
    fences: dict[str, dict[str, int]] = {}
    for row in connection.execute(select(tables.reservation)):
        fences.setdefault(row.lease, {})[row.serial] = row.fence
    open_leases = connection.execute(select(tables.lease).where(tables.lease.c.ended_at.is_(None)))
    return Contents(
        [_worker(row) for row in connection.execute(select(tables.worker))],
        [_device(row) for row in connection.execute(select(tables.device))],
        [_lease(row, fences.get(row.id, {})) for row in open_leases],
        care.read_out_of_service(connection),
        {row.serial: row.fence for row in connection.execute(select(tables.gone))},
        now(connection) if connection.dialect.name == "postgresql" else None,
    )


def save_worker(connection: Connection, worker: Worker) -> None:
    """Insert the worker, or overwrite what is known of it."""
    _upsert(
        connection,
        tables.worker,
        "name",
        {
            "name": worker.name,
            "url": worker.url,
            "version": worker.version,
            "kinds": list(worker.kinds),
            "boot": worker.boot,
            "state": worker.state.value,
            "draining": worker.draining,
            "seen_at": worker.seen_at,
        },
    )


def save_device(connection: Connection, device: Device) -> None:
    """Insert the device, or overwrite what is known of it."""
    _upsert(
        connection,
        tables.device,
        "serial",
        {
            "serial": device.serial,
            "worker": device.worker,
            "driver": device.driver,
            "state": device.state.value,
            "health": device.health.value,
            "reason": device.reason,
            "kinds": list(device.kinds),
            "labels": dict(device.labels),
            "fence": device.fence,
        },
    )


def forget_device(connection: Connection, serial: str, fence: int) -> None:
    """Delete a device that is not reserved; `fence` is the highest number ever leased on it, and is kept."""
    _upsert(connection, tables.gone, "serial", {"serial": serial, "fence": fence})
    connection.execute(delete(tables.device).where(tables.device.c.serial == serial))


def take(connection: Connection, leases: Iterable[Lease]) -> None:
    """Record new leases on devices that are free, all or none: a taken device raises DeviceBusyError."""
    leases = list(leases)
    wanted = {serial: fence for lease in leases for serial, fence in lease.fences.items()}
    columns = tables.device.c
    locked = connection.execute(
        select(columns.serial, columns.fence)
        .where(columns.serial.in_(wanted))
        .order_by(columns.serial)  # always locked in the same order, so that two controls never wait in a circle
        .with_for_update()
    ).all()
    held = connection.execute(
        select(tables.reservation.c.serial).where(tables.reservation.c.serial.in_(wanted))
    ).scalars()
    free = {row.serial for row in locked if row.fence < wanted[row.serial]}.difference(held)
    if taken := sorted(set(wanted) - free):
        raise DeviceBusyError(serials=", ".join(taken), reason="it was taken a moment ago")
    for lease in leases:
        connection.execute(
            insert(tables.lease).values(
                id=lease.id,
                token_hash=lease.token_hash,
                user=lease.holder.user,
                client=lease.holder.client,
                worker=lease.worker,
                kind=lease.kind,
                args=dict(lease.args),
                until=lease.until,
                had_socket=lease.had_socket,
                taken_at=datetime.now(UTC),
                ticket=lease.ticket,
            )
        )
        rows = [{"serial": serial, "lease": lease.id, "fence": fence} for serial, fence in lease.fences.items()]
        connection.execute(insert(tables.reservation), rows)
        for serial, fence in lease.fences.items():
            connection.execute(
                update(tables.device)
                .where(columns.serial == serial)
                .values(state=DeviceState.RESERVED.value, fence=fence)
            )


def extend(connection: Connection, leases: Collection[str], until: datetime) -> None:
    """Move the end of leases."""
    connection.execute(update(tables.lease).where(tables.lease.c.id.in_(leases)).values(until=until))


def retime(connection: Connection, ends: Mapping[str, datetime]) -> None:
    """Write when each of these leases ends by a clock that was set."""
    for lease, until in ends.items():
        connection.execute(update(tables.lease).where(tables.lease.c.id == lease).values(until=until))


def now(connection: Connection) -> datetime:
    """Return PostgreSQL's time, UTC."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def note_socket(connection: Connection, lease: str) -> None:
    """Remember that the lease's holder had a socket, so that the grace time counts for it."""
    connection.execute(update(tables.lease).where(tables.lease.c.id == lease).values(had_socket=True))


def end(connection: Connection, serials: Collection[str], leases: Collection[str], reason: str) -> None:
    """End reservations of `serials`; `leases` are those of them that hold nothing any more."""
    connection.execute(delete(tables.reservation).where(tables.reservation.c.serial.in_(serials)))
    if leases:
        ended = {"ended_at": datetime.now(UTC), "end_reason": reason}
        connection.execute(update(tables.lease).where(tables.lease.c.id.in_(leases)).values(**ended))


def end_unknown(connection: Connection, known: Collection[str]) -> dict[str, int]:
    """End open leases that are not `known`: their commit was reported lost, so nobody holds their tokens. Returns the
    fencing numbers that are used up by now, of all devices: what an earlier call ended may be unknown as well."""
    lost = [row.id for row in connection.execute(select(tables.lease.c.id).where(tables.lease.c.ended_at.is_(None)))]
    lost = [lease for lease in lost if lease not in known]
    if lost:
        columns = tables.reservation.c
        serials = list(connection.execute(select(columns.serial).where(columns.lease.in_(lost))).scalars())
        end(connection, serials, lost, "its commit was not confirmed")
        write_audit(connection, [Entry("end", ",".join(serials), detail="its commit was not confirmed")])
    return {row.serial: row.fence for row in connection.execute(select(tables.device.c.serial, tables.device.c.fence))}


def write_audit(connection: Connection, entries: Iterable[Entry]) -> None:
    """Append to the audit log. Nothing else writes there."""
    now = datetime.now(UTC)
    # As they will be read back, since their hash is of that.
    rows = [{"at": now, **{name: tables.storable(text) for name, text in asdict(e).items()}} for e in entries]
    if rows:
        chain.append(connection, rows)


def read_audit(connection: Connection, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """Return the newest `limit` lines of the audit log, newest first; `before` pages on by id."""
    shown = [column for column in tables.audit.c if column.name not in ("previous", "hash")]
    query = select(*shown).order_by(tables.audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(tables.audit.c.id < before)
    return [{**row, "at": row["at"].isoformat()} for row in connection.execute(query).mappings()]


def _upsert(connection: Connection, table: Any, key: str, values: Mapping[str, Any]) -> None:
    done = connection.execute(update(table).where(table.c[key] == values[key]).values(**values))
    if done.rowcount == 0:
        connection.execute(insert(table).values(**values))


def _worker(row: Row[Any]) -> Worker:
    return Worker(
        row.name, row.url, row.version, tuple(row.kinds), row.boot, WorkerState(row.state), row.draining, row.seen_at
    )


def _device(row: Row[Any]) -> Device:
    return Device(
        serial=row.serial,
        worker=row.worker,
        driver=row.driver,
        state=DeviceState(row.state),
        kinds=tuple(row.kinds),
        fence=row.fence,
        health=Health(row.health),
        reason=row.reason,
        labels=row.labels,
    )


def _lease(row: Row[Any], fences: Mapping[str, int]) -> Lease:
    return Lease(
        id=row.id,
        token_hash=row.token_hash,
        holder=Holder(row.user, row.client),
        worker=row.worker,
        kind=row.kind,
        args=row.args,
        fences=fences,
        until=row.until,
        had_socket=row.had_socket,
        ticket=row.ticket,
    )
