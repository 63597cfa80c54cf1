"""Counters for Prometheus on a loopback port. Read when somebody asks: a frame costs nothing for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fieldstation.stream.acquisition import Acquisition
from fieldstation.stream.errors import SocketTakenError


class StreamCollector(Collector):
    """The hub's and the source's counters. Per client: offered = sent + dropped + waiting."""

    def __init__(self, acquisition: Acquisition) -> None:
        self._acquisition = acquisition

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        hub = self._acquisition.hub
        clients = list(hub.subscriptions)
        produced = CounterMetricFamily("fieldstation_stream_frames_produced", "Frames that the source handed over.")
        produced.add_metric([], hub.produced)
        yield produced
        for name, text in (
            ("offered", "Frames offered to clients, after their filters."),
            ("sent", "Frames sent to clients."),
            ("dropped", "Frames that a slower client was not sent."),
        ):
            family = CounterMetricFamily(f"fieldstation_stream_frames_{name}", text, labels=["mode"])
            for mode in ("newest", "every"):
                total = getattr(hub.past[mode], name)
                total += sum(getattr(c.counters, name) for c in clients if c.mode == mode)
                family.add_metric([mode], total)
            yield family
        readers = GaugeMetricFamily("fieldstation_stream_clients", "StreamImages clients now.", labels=["mode"])
        for mode in ("newest", "every"):
            readers.add_metric([mode], sum(c.mode == mode for c in clients))
        yield readers
        health = self._acquisition.health()
        ok = GaugeMetricFamily("fieldstation_stream_ok", "1 while frames can be had.")
        ok.add_metric([], int(bool(health["ok"])))
        yield ok
        source = health["source"]
        if isinstance(source, dict):
            aside = CounterMetricFamily("fieldstation_stream_damaged", "Damaged stretches that were set aside.")
            aside.add_metric([], source.get("set_aside", 0))
            yield aside


def serve_metrics(acquisition: Acquisition, port: int) -> tuple[Any, int]:
    """Listen on 127.0.0.1:`port` (0: a free one); returns the HTTP server and its port."""
    registry = CollectorRegistry()
    registry.register(StreamCollector(acquisition))
    try:
        server, _ = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise SocketTakenError(address=f"127.0.0.1:{port}", problem=error.strerror or error) from error
    return server, server.server_port
