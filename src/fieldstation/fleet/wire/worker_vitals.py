"""`/health` and `/metrics` of a worker: read from what it holds at that moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Role, UnauthorizedError, authorize
from fieldstation.fleet.wire.faults import body_of, status_of
from fieldstation.fleet.wire.guard import PRINCIPAL
from fieldstation.fleet.worker import Worker

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "fieldstation_worker_"


class WorkerVitals(Collector):
    """One worker. `needs_control` is false for one that stands alone."""

    def __init__(self, worker: Worker, *, needs_control: bool) -> None:
        self._worker = worker
        self._needs_control = needs_control
        self._began = time.monotonic()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def health(self) -> dict[str, Any]:
        """Say how it is. Not `ok`: control does not hear it, so nothing on it is offered."""
        worker = self._worker
        leases = worker.holdings.active()
        return {
            "ok": worker.connected or not self._needs_control,
            "name": worker.name,
            "connected": worker.connected,
            "draining": worker.draining,
            "version": worker.version,
            "boot": worker.boot,
            "uptime_s": round(time.monotonic() - self._began, 1),
            "devices": dict(Counter(hosted.state.value for hosted in worker.devices.all())),
            "health": dict(Counter(hosted.device.health.value for hosted in worker.devices.all())),
            "leases": len(leases),
            "sockets": len(worker.delivery.sessions()),
            "undelivered": worker.delivery.owed_in_all(),
        }

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands now."""
        found = self.health()
        for name, text in (
            ("connected", "Whether control hears this worker"),
            ("draining", "Whether it takes no new reservations"),
            ("leases", "Open leases"),
            ("sockets", "Clients' sockets that present a lease"),
            ("undelivered", "Events that holders have not confirmed"),
        ):
            yield GaugeMetricFamily(PREFIX + name, text + ".", float(found[name]))
        for name, label in (("devices", "state"), ("health", "health")):
            text = f"Devices by {label}."
            metric = "devices" if name == "devices" else "devices_health"
            family = GaugeMetricFamily(PREFIX + metric, text, labels=[label])
            for value, count in found[name].items():
                family.add_metric([value], count)
            yield family

    def routes(self) -> list[Route]:
        """Return both endpoints. Without a token, where tokens are needed, `/health` says only `ok`."""
        return [Route("/health", self._show_health), Route("/metrics", self._show_metrics)]

    async def _show_health(self, request: Request) -> Response:
        found = self.health()
        if request.scope.get(PRINCIPAL) is None:
            found = {"ok": found["ok"]}
        return JSONResponse(found, 200 if found["ok"] else 503)

    async def _show_metrics(self, request: Request) -> Response:
        try:
            principal = request.scope.get(PRINCIPAL)
            if principal is None:
                raise UnauthorizedError()
            authorize(principal, Role.VIEWER, "reading the metrics")
        except FieldstationError as error:
            return JSONResponse(body_of(error), status_of(error, documented=False))
        return Response(generate_latest(self._registry), media_type=METRICS_TYPE)
