"""What clients are shown: rows of reservations, workers, devices. Pure functions from the model to JSON."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fieldstation.fleet.control.index import Index
from fieldstation.fleet.control.waiting import Place
from fieldstation.fleet.model import Device, Lease, Row, Worker, WorkerState


def reservation_row(row: Row) -> dict[str, Any]:
    """Return a reserved device in both documented dialects at once: `url`, and `ip` with `serverport`.

    The lease token stands in the address as user-info, so that an unmodified client presents it by itself.
    """
    parts = urlsplit(row.url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {
        "serial": row.serial,
        "url": f"{parts.scheme}://lease:{row.token}@{host}:{port}",
        "ip": f"lease:{row.token}@{host}",
        "serverport": port,
        "fence": row.fence,
        "lease": row.token,
        "until": row.until.isoformat(),
        **({} if row.for_s is None else {"for_s": row.for_s}),
    }


def place_in_queue(place: Place) -> dict[str, Any]:
    """Return what somebody who waits is told."""
    why = place.why
    return {
        "ticket": place.ticket,
        "position": place.position,
        "reason": why.text,
        "code": why.code.value,
        "wanted": why.wanted,
        "free": why.free,
        "exist": why.exist,
        "ahead": why.ahead,
        "estimate_s": place.estimate_s,
    }


def worker_row(worker: Worker, devices: int) -> dict[str, Any]:
    """Return a worker."""
    return {
        "name": worker.name,
        "url": worker.url,
        "version": worker.version,
        "kinds": list(worker.kinds),
        "state": worker.state.value,
        "draining": worker.draining,
        "devices": devices,
        "seen_at": worker.seen_at.isoformat() if worker.seen_at else None,
    }


def device_row(device: Device, index: Index) -> dict[str, Any]:
    """Return a device with its holder."""
    holding = index.holding_of(device.serial)
    worker = index.workers[device.worker]
    return {
        "serial": device.serial,
        "worker": device.worker,
        "worker_state": worker.state.value,
        "driver": device.driver,
        "state": device.state.value,
        "health": device.health.value,
        "reason": device.reason or ("" if worker.state is WorkerState.ONLINE else f"worker is {worker.state}"),
        "kinds": list(device.kinds),
        "labels": dict(device.labels),
        "fence": device.fence,
        "client": holding.lease.holder.client if holding else None,
        "user": holding.lease.holder.user if holding else None,
        "kind": holding.lease.kind if holding else None,
        "until": holding.lease.until.isoformat() if holding else None,
    }


def all_workers(index: Index) -> list[dict[str, Any]]:
    """Return every worker, by name."""
    return [worker_row(w, len(index.of_worker(w.name))) for _, w in sorted(index.workers.items())]


def all_devices(index: Index) -> list[dict[str, Any]]:
    """Return every device, by serial."""
    return [device_row(device, index) for _, device in sorted(index.devices.items())]


def all_reservations(index: Index) -> list[dict[str, Any]]:
    """Return every reserved device, in the order of reservation."""
    return [_reservation(serial, index.holdings[lease].lease) for serial, lease in index.lease_of.items()]


def _reservation(serial: str, lease: Lease) -> dict[str, Any]:
    return {
        "serial": serial,
        "client": lease.holder.client,
        "user": lease.holder.user,
        "worker": lease.worker,
        "kind": lease.kind,
        "fence": lease.fences[serial],
        "until": lease.until.isoformat(),
        "lease": lease.id,
    }
