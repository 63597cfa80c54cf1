"""`/health` and `/metrics` of control: read from what it holds at that moment, so that nothing is kept twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from fieldstation import __version__
from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Role, authorize
from fieldstation.fleet.control import Control
from fieldstation.fleet.wire import faults
from fieldstation.fleet.wire.guard import PRINCIPAL

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "fieldstation_fleet_"

Load = Callable[[], dict[str, int]]  # sockets and events of clients


def health(control: Control) -> dict[str, object]:
    """Say how control is. `ok` is what a load balancer or a supervisor wants to know."""
    index, leadership = control.index, control.leadership
    problem = leadership.problem or control.record.problem
    return {
        "ok": not problem,
        "leads": control.leads,
        "epoch": max(leadership.epoch, leadership.seen_epoch),
        "leader": leadership.holder,
        "database": problem or "ok",
        "version": __version__,
        "uptime_s": round(time.monotonic() - control.record.counts.since, 1),
        "available": control.amount,
        "devices": dict(Counter(device.state.value for device in index.devices.values())),
        "workers": dict(Counter(worker.state.value for worker in index.workers.values())),
        "reservations": len(index.lease_of),
        "waiting": control.queue.length,
    }


class ControlMetrics(Collector):
    """What Prometheus is told."""

    def __init__(self, control: Control, load: Load) -> None:
        self._control = control
        self._load = load

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands now."""
        control, index, counts = self._control, self._control.index, self._control.record.counts
        gauges = {
            "leads": ("Whether this control leads", float(control.leads)),
            "epoch": ("The leader's epoch, as this control knows it", float(control.leadership.epoch)),
            "devices_available": ("Devices that anybody could reserve", float(control.amount)),
            "reservations": ("Reserved devices", float(len(index.lease_of))),
            "leases": ("Open leases", float(len(index.holdings))),
            "waiting": ("Requests in the queue", float(control.queue.length)),
            "waiting_longest_seconds": ("How long the first of them waits", control.queue.longest_s()),
            "audit_unwritten": ("Lines of the audit log that are not on disk yet", float(control.record.unwritten)),
            **{name: (f"Clients' {name.replace('_', ' ')}", float(value)) for name, value in self._load().items()},
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(PREFIX + name, text + ".", value)
        counters = {
            "reserved_devices": ("Devices reserved", counts.reserved),
            "queue_grants": ("Requests served from the queue", counts.grants),
            "queue_waited_seconds": ("How long those had waited, together", counts.waited_s),
            "commits": ("Transactions", counts.commits),
            "commit_seconds": ("How long they took, together", counts.commit_s),
            "commit_failures": ("Transactions that failed", counts.commit_failures),
            "audit_lost": ("Lines of the audit log dropped while the database was away", counts.audit_lost),
            "events_dropped": ("Events dropped for clients that were away too long", counts.dropped_events),
            "slow_clients": ("Sockets closed since nobody read them", counts.slow_clients),
        }
        for name, (text, total) in counters.items():
            yield CounterMetricFamily(PREFIX + name, text + ".", total)
        yield _by(
            "devices",
            "Devices by state and health",
            ["state", "health"],
            Counter((device.state.value, device.health.value) for device in index.devices.values()),
        )
        yield _by(
            "workers",
            "Workers by state",
            ["state"],
            Counter((worker.state.value,) for worker in index.workers.values()),
        )
        for name, text, label, found in (
            ("ended_devices", "Devices whose lease ended, by cause", "cause", counts.ended),
            ("refused_requests", "Requests refused, by code", "code", counts.refused),
        ):
            family = CounterMetricFamily(PREFIX + name, text + ".", labels=[label])
            for key, number in found.items():
                family.add_metric([key], number)
            yield family


def _by(name: str, text: str, labels: list[str], found: Counter[tuple[str, ...]]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text + ".", labels=labels)
    for key, number in found.items():
        family.add_metric(list(key), number)
    return family


def mount(app: FastAPI, control: Control, load: Load) -> None:
    """Serve both. Without a token, where tokens are needed, `/health` says only `ok` and `leads`."""
    registry = CollectorRegistry()
    registry.register(ControlMetrics(control, load))
    ProcessCollector(registry=registry)

    async def show_health(request: Request) -> Response:
        found = health(control)
        if request.scope[PRINCIPAL] is None:
            found = {key: found[key] for key in ("ok", "leads", "epoch")}
        return JSONResponse(found, 200 if found["ok"] else 503)

    async def show_metrics(request: Request) -> Response:
        try:
            authorize(request.scope[PRINCIPAL], Role.VIEWER, "reading the metrics")
        except FieldstationError as error:
            return JSONResponse(faults.body_of(error), faults.status_of(error, documented=False))
        return Response(generate_latest(registry), media_type=METRICS_TYPE)

    own: dict[str, Any] = {"methods": ["GET"], "tags": ["own"], "response_model": None}
    app.add_api_route("/health", show_health, summary="How it is; 503 when it is not well.", **own)
    app.add_api_route(
        "/metrics", show_metrics, summary="Numbers for Prometheus.", response_class=PlainTextResponse, **own
    )
