"""From configuration to running nodes: the documented `Runner`, and the way a file with a node is started."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Generator
from typing import Any, Self

from fieldstation.core import service
from fieldstation.pipeline import logs
from fieldstation.pipeline.config import NodeConfig
from fieldstation.pipeline.environment import process_of, read, with_settings
from fieldstation.pipeline.model import Counts, ProcessType
from fieldstation.pipeline.node import DEFAULT, Callback, Node
from fieldstation.pipeline.optional import services
from fieldstation.pipeline.service import NodeService
from fieldstation.pipeline.wire import codec
from fieldstation.pipeline.wire.jetstream import JetStreamBus


def build_service(node: Node, config: NodeConfig) -> NodeService:
    """Put a node together on JetStream; nothing is connected before its start()."""
    config = with_settings(config, node.settings)
    process = process_of(config, node.kind)
    counts = Counts()
    bus = JetStreamBus(
        config.nats,
        name=f"{process.product} {process.name}",
        ack_wait_s=config.runner.subscriber.ack_wait_time,
        counts=counts,
    )
    return _Connected(node, process, config, bus, codec, services(config, process), counts)


class _Connected(NodeService):
    """A node service that opens its own connection first."""

    async def start(self) -> None:
        bus = self._bus
        assert isinstance(bus, JetStreamBus)
        await bus.start()
        await super().start()


async def run_node(node: Node, config: NodeConfig | None = None) -> None:
    """The life of a node process: start, print `ready <health url>`, work, drain on SIGTERM."""
    config = read() if config is None else config
    logs.setup(config.runner.logger)
    node_service = build_service(node, config)
    stop_s = config.runner.subscriber.drain_timeout + 2
    await service.run([node_service], ready_url=lambda: node_service.url, stop_deadline_s=stop_s)


def main(node: Node) -> None:
    """Run a node until it is told to stop; handlers that hang do not keep the process alive."""
    try:
        asyncio.run(run_node(node))
    finally:
        _leave_hung_threads()


def _leave_hung_threads() -> None:
    # The interpreter waits at its end for worker threads. A handler that hangs must not keep the process alive.
    if _threads_hang():
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, SystemExit):
            sys.stderr.write(f"{error}\n")
        _end(0 if error is None else 1)


def _end_with_main_thread() -> None:
    # The same for a script with a main of its own: once that is through, the process ends.
    threading.main_thread().join()
    if _threads_hang():
        _end(0)


def _threads_hang() -> bool:
    return any(thread.name.startswith("handler") and thread.is_alive() for thread in threading.enumerate())


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _stop_idle_loop(loop: asyncio.AbstractEventLoop) -> None:
    """End a caller's `loop.run_forever()`: documented nodes keep the loop alive themselves after run()."""

    def check() -> None:
        if asyncio.all_tasks(loop):
            loop.call_later(0.05, check)
        else:
            loop.stop()

    loop.call_later(0.05, check)


class _Builder:
    kind: ProcessType

    def __init__(self, config: NodeConfig | None) -> None:
        self._config = config
        self.node = Node(self.kind)

    def with_initializer(self, initializer: Callback) -> Self:
        """Call `initializer(sdk)` once before the first message."""
        self.node.initializer = initializer
        return self

    def with_finalizer(self, finalizer: Callback) -> Self:
        """Call `finalizer(sdk)` once after the last message."""
        self.node.finalizer = finalizer
        return self

    def with_settings(self, **settings: Any) -> Self:
        """Set `runner.*` keys in code, for example `concurrency=8`; file and environment win."""
        self.node.settings |= settings
        return self

    async def run(self) -> None:
        """Start and work until SIGTERM or SIGINT; then drain and return."""
        self.node.check()
        await run_node(self.node, self._config)
        _stop_idle_loop(asyncio.get_running_loop())
        threading.Thread(target=_end_with_main_thread, daemon=True).start()


class _HandlerBuilder(_Builder):
    def with_preprocessor(self, preprocessor: Callback) -> Self:
        """Call `preprocessor(sdk, payload)` before the handler."""
        self.node.preprocessor = preprocessor
        return self

    def with_handler(self, handler: Callback) -> Self:
        """Call `handler(sdk, payload)` for each message; what it returns (unless None) is sent as output."""
        self.node.handlers[DEFAULT] = handler
        return self

    def with_custom_handler(self, name: str, handler: Callback) -> Self:
        """Call `handler` instead for messages whose sender is `name` (case does not count)."""
        self.node.handlers[name.lower()] = handler
        return self

    def with_postprocessor(self, postprocessor: Callback) -> Self:
        """Call `postprocessor(sdk, payload)` after the handler, with the same payload."""
        self.node.postprocessor = postprocessor
        return self


class TaskRunner(_HandlerBuilder):
    """Builds a task: shares its inputs with its replicas, sends outputs on."""

    kind = ProcessType.TASK


class ExitRunner(_HandlerBuilder):
    """Builds an exit: as a task, at the end of the graph; its output reaches the triggers."""

    kind = ProcessType.EXIT


class TriggerBuilder(_Builder):
    """Builds a trigger: begins requests and hears every response."""

    kind = ProcessType.TRIGGER

    def with_runner(self, runner: Callback) -> Self:
        """Run `runner(trigger_runner, sdk)` beside the response handling: a server, a cron, a poller."""
        self.node.runner = runner
        return self


class Runner:
    """The documented entry point: `Runner().initialize().task_runner().with_handler(f).run()`.

    The configuration is read from files and environment, unless one is given.
    """

    def __init__(self, config: NodeConfig | None = None) -> None:
        self._config = config

    def initialize(self) -> Runner:
        """Kept for the documented chain, awaited or not; everything happens in run()."""
        return self

    def __await__(self) -> Generator[Any, None, Runner]:
        yield from ()
        return self

    def trigger_runner(self) -> TriggerBuilder:
        """Build a trigger."""
        return TriggerBuilder(self._config)

    def task_runner(self) -> TaskRunner:
        """Build a task."""
        return TaskRunner(self._config)

    def exit_runner(self) -> ExitRunner:
        """Build an exit."""
        return ExitRunner(self._config)
