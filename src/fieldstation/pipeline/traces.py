"""`sdk.traces`: OpenTelemetry traces. One span per message in work; the `traceparent` header joins them into one trace
from the trigger to the exit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fieldstation.core.plugins import require
from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.model import Process
from fieldstation.pipeline.work import Work

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Tracer

HEADER = "traceparent"  # W3C Trace Context
HEADER_BYTES = 72  # of it with its value and line end, against the size limit of a message


class Traces:
    """Spans of this process. Without an endpoint they are made, for handlers that ask for them, and go nowhere."""

    def __init__(self, config: NodeConfig, process: Process) -> None:
        require("opentelemetry.sdk.trace", extra="pipeline", feature="sdk.traces")
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create(
            {
                "service.name": process.name,
                "service.version": process.version,
                "service.namespace": f"{process.product}.{process.workflow}",
            }
        )
        sampler = ParentBased(TraceIdRatioBased(config.traces.share))
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        if (processor := _otlp(config)) is not None:
            self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("fieldstation")
        self._header = TraceContextTextMapPropagator()
        self._consumer, self._producer = SpanKind.CONSUMER, SpanKind.PRODUCER

    def get_tracer(self) -> Tracer:
        """Return the OpenTelemetry Tracer; spans that a handler starts with it are children of its message's span."""
        return self._tracer

    @contextmanager
    def handling(self, work: Work) -> Iterator[None]:
        """The span of one try of one message; an exception that passes marks it as failed."""
        subject = work.delivery.origin.subject
        attributes: dict[str, str | int] = {
            "messaging.system": "nats",
            "messaging.operation.type": "process",
            "messaging.destination.name": subject,
            "messaging.consumer.group.name": work.delivery.origin.consumer,
            "fieldstation.try": work.tries,
        }
        parent = self._header.extract({HEADER: work.delivery.trace})
        with self._tracer.start_as_current_span(
            f"process {subject}", parent, self._consumer, attributes=attributes
        ) as span:
            try:
                yield
            finally:
                if work.message is not None:
                    span.set_attribute("messaging.message.conversation_id", work.message.request_id)

    def outgoing(self, subject: str, work: Work | None) -> dict[str, str]:
        """The header of a message that is sent now, so that its receivers' spans follow the one at work here.

        Outside of any span: what the message in work brought, else a new trace that begins with this sending.
        """
        headers: dict[str, str] = {}
        self._header.inject(headers)
        if HEADER not in headers and work is not None and work.delivery.trace:
            return {HEADER: work.delivery.trace}
        if HEADER not in headers:
            attributes = {
                "messaging.system": "nats",
                "messaging.operation.type": "send",
                "messaging.destination.name": subject,
            }
            with self._tracer.start_as_current_span(f"send {subject}", kind=self._producer, attributes=attributes):
                self._header.inject(headers)
        return {HEADER: headers[HEADER]} if HEADER in headers else {}

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.shutdown()


def _otlp(config: NodeConfig) -> SpanProcessor | None:
    settings = config.traces
    if not settings.endpoint:
        return None
    module = require(
        "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
        extra="otlp",
        feature="Sending traces (traces.endpoint)",
    )
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(
        module.OTLPSpanExporter(endpoint=settings.endpoint, insecure=settings.insecure, timeout=int(settings.timeout))
    )
