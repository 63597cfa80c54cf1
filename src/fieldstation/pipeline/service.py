"""One node from configuration to shutdown, over any bus."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from fieldstation.core.errors import MissingExtraError
from fieldstation.core.metrics import CONTENT_TYPE, Family, exposition
from fieldstation.pipeline.bus import Bus, Codec
from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.context import ProcessContext, Services
from fieldstation.pipeline.ephemeral import EphemeralStorage
from fieldstation.pipeline.errors import NoInputsError
from fieldstation.pipeline.health import HealthServer, Page, as_json
from fieldstation.pipeline.messaging import Messaging
from fieldstation.pipeline.metadata import Metadata, PathUtils
from fieldstation.pipeline.model import Counts, Process, ProcessType
from fieldstation.pipeline.node import Node
from fieldstation.pipeline.requesting import TriggerRunner
from fieldstation.pipeline.runner import MessageRunner
from fieldstation.pipeline.settings import CentralizedConfiguration, Scope

log = logging.getLogger(__name__)

BLOCKED_S = 5.0  # the event loop standing still so long is worth a line that names who holds it


class NodeService:
    """A node's life: open what it needs, subscribe, work, and on stop hand back what was not begun."""

    def __init__(
        self,
        node: Node,
        process: Process,
        config: NodeConfig,
        bus: Bus,
        codec: Codec,
        services: Services,
        counts: Counts,
    ) -> None:
        node.check()
        if process.kind is not ProcessType.TRIGGER and not config.nats.inputs:
            raise NoInputsError(kind=process.kind.value, process=process.name)
        self.name = f"node {process.name}"
        self._node = node
        self._process = process
        self._config = config
        self._bus = bus
        self._codec = codec
        self._services = services
        self.counts = counts
        self.ready = False
        self._started = time.monotonic()
        self._work: asyncio.Task[None] | None = None
        self.sdk: ProcessContext
        self.runner: MessageRunner
        settings = config.runner.health
        pages = {"/health": self._health_page, "/ready": self._ready_page, "/metrics": self._metrics_page}
        self.http = None if settings.port < 0 else HealthServer(settings.host, settings.port, pages)
        self._initialized = False
        self._closers: list[Callable[[], None]] = []  # send what is measured and traced and not sent yet
        self._beat = time.monotonic()

    @property
    def url(self) -> str:
        """Where the node's health is asked; "" when that is off."""
        return self.http.url if self.http is not None else ""

    async def start(self) -> None:
        """Open buckets and storage, run the initializer, subscribe."""
        loop = asyncio.get_running_loop()
        config = self._config
        messaging = Messaging(self._process, config.nats.output, self._bus, self._codec, loop)
        self.sdk = ProcessContext(
            Metadata(config),
            PathUtils(config.metadata.base_path),
            messaging,
            EphemeralStorage(await self._bus.objects(config.nats.object_store) if config.nats.object_store else None),
            await self._open_settings(),
            self._services,
            loop,
        )
        self.runner = MessageRunner(
            self._node,
            self._process,
            self._bus,
            self._codec,
            config.runner,
            self.sdk,
            messaging,
            config.nats.output,
            self.counts,
        )
        if self._process.kind is ProcessType.TRIGGER:
            messaging.on_request = self.runner.responses.expect
        self._measure()
        log.info("%s", self._says_what_is_off())
        if self._node.initializer is not None:
            await self.runner.call(self._node.initializer, self.sdk)
        self._initialized = True
        await self.runner.subscribe(config.nats.inputs)
        if self.http is not None:
            await self.http.start()
        self.ready = True
        log.info("%s is ready after %.2f s", self.name, time.monotonic() - self._started)

    def _measure(self) -> None:
        if self._config.measurements.endpoint:
            try:
                self.runner.observe = self.sdk.measurements.handled
                self._closers.append(self.sdk.measurements.close)
            except MissingExtraError as error:
                log.warning("measurements are off: %s", error)
        if self._config.traces.endpoint:
            try:
                self.runner.traces = self.sdk.messaging.traces = self.sdk.traces
                self._closers.append(self.sdk.traces.close)
            except MissingExtraError as error:
                log.warning("traces are off: %s", error)

    def _says_what_is_off(self) -> str:
        config = self._config
        return "; ".join(
            [
                f"ephemeral storage: {config.nats.object_store or 'off'}",
                f"persistent storage: {config.minio.endpoint or 'local folder'}",
                f"predictions: {config.predictions.endpoint or 'local file'}",
                f"measurements: {config.measurements.endpoint or 'off'}",
                f"traces: {config.traces.endpoint or 'off'}",
            ]
        )

    async def run(self) -> None:
        """Work until cancelled, or until the bus is lost or a trigger's runner function fails."""
        # A task of its own, not a child: on cancellation it goes on through the drain in stop(), which ends it.
        self._work = asyncio.create_task(self._everything())
        threading.Thread(target=self._watch_loop, args=(threading.get_ident(),), daemon=True).start()
        await asyncio.shield(self._work)

    async def stop(self) -> None:
        """Drain, run the finalizer, close the bus."""
        self.ready = False
        try:
            if hasattr(self, "runner"):
                await self.runner.drain()
            if self._initialized and self._node.finalizer is not None:
                await self.runner.call(self._node.finalizer, self.sdk)
            if hasattr(self, "runner"):
                self.runner.close()
            await asyncio.gather(*(asyncio.to_thread(close) for close in self._closers))
            if hasattr(self, "sdk"):
                await self.sdk.centralized_config.close()
            if self._bus.connected and self._work is not None and not self._work.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self._bus.flush()
        finally:
            if self._work is not None:
                self._work.cancel()
                await asyncio.gather(self._work, return_exceptions=True)
            await self._bus.close()
            if self.http is not None:
                await self.http.stop()

    def health(self) -> dict[str, object]:
        """Say whether the node is connected and how long its longest handler call has been at work."""
        oldest = self.runner.oldest_s() if self.ready else 0.0
        ok = self._bus.connected and oldest <= self._config.runner.subscriber.handler_timeout + 60
        return {
            "ok": ok,
            "process": self._process.name,
            "connected": self._bus.connected,
            "oldest_handler_s": round(oldest, 3),
            "held": sum(len(lane.held) for lane in self.runner.lanes) if self.ready else 0,
        }

    async def _everything(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._bus.run())
            group.create_task(self.runner.run())
            group.create_task(self._pulse())
            if self._node.runner is not None:
                group.create_task(self._run_trigger(self._node.runner))

    async def _run_trigger(self, function: Any) -> None:
        await self.runner.call(function, TriggerRunner(self.runner.responses, self.sdk.messaging), self.sdk)
        log.info("the runner function of %s has returned; responses are still taken", self._process.name)

    async def _open_settings(self) -> CentralizedConfiguration:
        names = self._config.centralized_configuration
        buckets = {
            Scope.ProcessScope: names.process.bucket,
            Scope.WorkflowScope: names.workflow.bucket,
            Scope.ProductScope: names.product.bucket,
            Scope.GlobalScope: names.global_.bucket,
        }
        opened = await asyncio.gather(*(self._bus.bucket(name) for name in buckets.values()))
        settings = CentralizedConfiguration(dict(zip(buckets, opened, strict=True)))
        if names.process.config:
            await settings.start_with(names.process.config)
        return settings

    async def _pulse(self) -> None:
        seen = self.counts.reconnects
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(1.0)
            if self.counts.reconnects != seen:
                seen = self.counts.reconnects
                try:
                    async with asyncio.timeout(5):
                        await self.sdk.centralized_config.refresh()
                except Exception as error:
                    log.warning("the configuration was not read again after a reconnect: %s", error)
                    seen = -1

    def _watch_loop(self, loop_thread: int) -> None:
        """In a thread: name the line that keeps the event loop from turning."""
        told = 0.0
        while self._work is not None and not self._work.done():
            time.sleep(1.0)
            blocked = time.monotonic() - self._beat - 1.0
            if blocked > BLOCKED_S and self._beat != told:
                told = self._beat
                frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 - the documented way to see another thread
                where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "unknown"
                log.error(
                    "the event loop has stood still for %.0f s at %s: make the handler a plain function (it gets a "
                    "thread), or await in it",
                    blocked,
                    where,
                )

    def _health_page(self) -> Page:
        report = self.health()
        return as_json(bool(report["ok"]), report)

    def _ready_page(self) -> Page:
        return as_json(self.ready and self._bus.connected, {"ready": self.ready and self._bus.connected})

    def _metrics_page(self) -> Page:
        process = self._process
        labels = {"product": process.product, "workflow": process.workflow, "process": process.name}
        texts = {
            "received": "Messages handed to this process.",
            "succeeded": "Messages whose outputs were confirmed and that were acknowledged.",
            "failed": "Tries that ended in an error.",
            "retried": "Tries that were followed by another.",
            "dead": "Messages given up.",
            "handed_back": "Messages given back unfinished.",
            "repeated": "Messages delivered again while in work here.",
            "published": "Messages sent.",
            "duplicates": "Outputs the server already had.",
            "republished": "Outputs sent again for want of a confirmation.",
            "reconnects": "Times the connection came back.",
        }
        seconds, calls = self.runner.seconds
        held = sum(len(lane.held) for lane in self.runner.lanes)
        found = {
            **{f"{name}_total": ("counter", text, getattr(self.counts, name)) for name, text in texts.items()},
            "handler_seconds_total": ("counter", "Time spent in handlers.", seconds),
            "handler_calls_total": ("counter", "Handler calls.", calls),
            "held": ("gauge", "Messages here that are not settled.", held),
        }
        families: dict[str, Family] = {
            f"fieldstation_pipeline_{name}": (kind, text, [(labels, float(value))])
            for name, (kind, text, value) in found.items()
        }
        return 200, CONTENT_TYPE, exposition(families)
