"""`sdk.measurements`: OpenTelemetry metrics, sent by OTLP when an endpoint is configured."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fieldstation.core.plugins import require
from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.model import Process

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.sdk.metrics.export import MetricReader

log = logging.getLogger(__name__)

HISTOGRAM = "runner-process-message-metric"


class Measurements:
    """Meters of this process. The attributes of our own histogram name the process, never the request: a series per
    request would fill any metrics store."""

    def __init__(self, config: NodeConfig, process: Process, reader: MetricReader | None = None) -> None:
        require("opentelemetry.sdk.metrics", extra="pipeline", feature="sdk.measurements")
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import Resource

        resource = Resource.create(
            {
                # Both SDKs' names: dashboards of either find us.
                "service.name": process.product,
                "service.version": process.version,
                "service.namespace": process.workflow,
                "service.instance.id": process.name,
                "service.product": process.product,
                "service.workflow": process.workflow,
                "service.process": process.name,
            }
        )
        reader = reader or _otlp(config)
        self._provider = MeterProvider([reader] if reader is not None else [], resource)
        self._meter = self._provider.get_meter("fieldstation")
        self._attributes = {
            "product": process.product,
            "version": process.version,
            "workflow": process.workflow,
            "process": process.name,
        }
        self._histogram: Histogram = self._meter.create_histogram(HISTOGRAM, "ms", "Time to process one message.")

    def get_metrics_client(self) -> Meter:
        """Return the OpenTelemetry Meter: `create_counter`, `create_histogram`, ..."""
        return self._meter

    def handled(self, milliseconds: float) -> None:
        """Record the time one message took."""
        self._histogram.record(milliseconds, self._attributes)

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()


def _otlp(config: NodeConfig) -> MetricReader | None:
    settings = config.measurements
    if not settings.endpoint:
        return None
    module = require(
        "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
        extra="otlp",
        feature="Sending measurements (measurements.endpoint)",
    )
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = module.OTLPMetricExporter(
        endpoint=settings.endpoint, insecure=settings.insecure, timeout=int(settings.timeout)
    )
    return PeriodicExportingMetricReader(exporter, export_interval_millis=settings.metrics_interval * 1000)
