"""Work through messages: pick the handler, send what it returns, acknowledge once that is confirmed, retry, give up."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fieldstation.core.retry import Backoff
from fieldstation.pipeline.bus import Bus, Codec
from fieldstation.pipeline.config import RunnerConfig
from fieldstation.pipeline.errors import (
    GivenUpError,
    HandlerTimeoutError,
    MessageError,
    RejectedError,
)
from fieldstation.pipeline.lane import Lane
from fieldstation.pipeline.messaging import Messaging
from fieldstation.pipeline.model import Counts, Message, MessageType, Process, ProcessType
from fieldstation.pipeline.names import durable
from fieldstation.pipeline.node import Callback, Node, is_async, payload_type
from fieldstation.pipeline.responses import Responses
from fieldstation.pipeline.traces import Traces
from fieldstation.pipeline.work import Work, current

log = logging.getLogger(__name__)

TICK_S = 0.5
_UNTRACED = contextlib.nullcontext()
_UNSENDABLE_PAUSE_S = 5.0  # before a message is tried again whose ERROR could not be sent either


class StageError(Exception):
    """A user's callable failed; `stage` is the word the documented error texts use."""

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.stage = stage
        self.cause = cause


class MessageRunner:
    """Runs one node's messages over a bus. What it gives up on leaves as an ERROR on `output` and as a dead letter."""

    def __init__(
        self,
        node: Node,
        process: Process,
        bus: Bus,
        codec: Codec,
        config: RunnerConfig,
        sdk: Any,
        messaging: Messaging,
        output: str,
        counts: Counts,
    ) -> None:
        self._node = node
        self._process = process
        self._bus = bus
        self._codec = codec
        self._config = config
        self._sdk = sdk
        self._messaging = messaging
        self._output = output
        self.counts = counts
        self.responses = Responses()
        self.lanes: list[Lane] = []
        self.observe: Callable[[float], None] | None = None  # called with the milliseconds of each handling
        self.traces: Traces | None = None  # set when traces are on
        self.seconds = [0.0, 0]  # handler time and count, for the mean; the metrics read it
        self._backoff = Backoff(config.retry.initial, config.retry.ceiling)
        self._threads = self._new_threads()
        self._plans: dict[Callback, tuple[bool, Any]] = {}

    async def subscribe(self, inputs: list[str]) -> None:
        """Open a lane for each input subject, and one for replays."""
        shared = self._process.kind is not ProcessType.TRIGGER
        for subject in inputs:
            lane = self._lane(self._respond if not shared else self._handle)
            lane.subscription = await self._bus.subscribe(
                subject, durable(subject, self._process.name), shared=shared, deliver=lane.deliver
            )
        if shared and self._config.retry.dead_letters:
            lane = self._lane(self._handle)
            lane.subscription = await self._bus.subscribe_replays(self._process.name, lane.deliver)

    def _lane(self, handle: Any) -> Lane:
        lane = Lane(self._bus, self._config.subscriber, self.counts, handle)
        self.lanes.append(lane)
        return lane

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self.lanes:
                for _ in range(self._config.subscriber.concurrency):
                    group.create_task(lane.work())
            group.create_task(self._tick())

    async def _tick(self) -> None:
        interval = min(TICK_S, self._config.subscriber.ack_wait_time / 6)
        while True:
            await asyncio.sleep(interval)
            now = time.monotonic()
            for lane in self.lanes:
                lane.tick(now)

    async def drain(self) -> None:
        """Stop taking messages, hand back those not begun, give those at work `drain_timeout` to finish."""
        deadline = time.monotonic() + self._config.subscriber.drain_timeout
        self.responses.close()
        async with asyncio.TaskGroup() as group:
            for lane in self.lanes:
                group.create_task(lane.drain(deadline))

    def close(self) -> None:
        """Let the threads go; one that hangs is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _new_threads(self) -> ThreadPoolExecutor:
        # As many as there can be messages in handlers, over all inputs and replays, and one for the other callables.
        settings = self._config.subscriber
        return ThreadPoolExecutor(settings.threads or settings.concurrency * 4 + 1, thread_name_prefix="handler")

    def oldest_s(self) -> float:
        """Age in seconds of the longest handler call at work."""
        now = time.monotonic()
        return max((lane.oldest_s(now) for lane in self.lanes), default=0.0)

    async def call(self, callback: Callback, *args: Any) -> Any:
        """Call a user's callable: coroutines on the loop, sync ones in a thread that sees the same message."""
        asynchronous, _ = self._plan(callback)
        if asynchronous:
            return await callback(*args)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._threads, lambda: context.run(callback, *args))
        # A plain function may hand out a coroutine (a lambda around one, a wrapped method).
        return await result if asyncio.iscoroutine(result) else result

    def _plan(self, callback: Callback) -> tuple[bool, Any]:
        plan = self._plans.get(callback)
        if plan is None:
            wanted = payload_type(callback)
            plan = self._plans[callback] = is_async(callback), wanted if self._codec.is_proto(wanted) else None
        return plan

    async def _handle(self, work: Work) -> None:
        lane: Lane = work.home
        work.confirmed = self._settle
        work.tries += 1
        token = current.set(work)
        try:
            with self.traces.handling(work) if self.traces is not None else _UNTRACED:
                self._refuse_hopeless(work)
                await self._stages(work)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not work.timed_out or task is None or work.withdrawn:
                raise
            task.uncancel()
            work.error = HandlerTimeoutError(deadline_s=self._config.subscriber.handler_timeout)
            # A thread cannot be stopped. The next handlers get fresh ones, so that hung ones do not use them up.
            self._threads.shutdown(wait=False)
            self._threads = self._new_threads()
        except Exception as error:
            work.error = error
        finally:
            current.reset(token)
            took = time.monotonic() - work.started
            self.seconds[0] += took
            self.seconds[1] += 1
            if self.observe is not None:
                self.observe(took * 1000)
        if work.delivery.origin.sequence in lane.held:
            work.finished = True
            if not work.unconfirmed:
                self._settle(work)

    def _refuse_hopeless(self, work: Work) -> None:
        if work.delivery.deliveries > self._config.subscriber.max_deliveries:
            raise GivenUpError(deliveries=work.delivery.deliveries)

    async def _stages(self, work: Work) -> None:
        limit = self._config.subscriber.max_inflated_bytes
        message = work.message = self._codec.decode(work.delivery.body, work.delivery.origin.subject, limit)
        node = self._node
        handler = node.handler_for(message.from_node)
        # A handler that names its message type cannot take an ERROR, which has no payload; one that takes whatever
        # comes is called as documented, unless it is told otherwise.
        typed = self._plan(handler)[1] is not None
        if message.message_type == MessageType.ERROR and (typed or self._config.retry.forward_errors):
            self._messaging.send_error(message.error)
            return
        if node.preprocessor is not None:
            await self._stage("handler preprocessor", node.preprocessor, message)
        await self._stage("handler", handler, message)
        if node.postprocessor is not None:
            await self._stage("handler postprocessor", node.postprocessor, message)

    async def _stage(self, stage: str, callback: Callback, message: Message) -> None:
        try:
            _, wanted = self._plan(callback)
            payload = message.payload if wanted is None else self._codec.unpack(message.payload, wanted)
            result = await self.call(callback, self._sdk, payload)
            if result is not None:
                await self._messaging.send_output(result)
        except Exception as error:
            raise StageError(stage, error) from error

    def _settle(self, work: Work) -> None:
        lane: Lane = work.home
        if work.delivery.origin.sequence not in lane.held:
            return
        if work.error is None:
            lane.release(work)
            self.counts.succeeded += 1
            self._bus.acknowledge(work.delivery)
            return
        self.counts.failed += 1
        text = self._text(work, work.error)
        if self._final(work, work.error):
            self._give_up(work, text)
            return
        self.counts.retried += 1
        delay = self._backoff.delay(work.tries - 1)
        log.warning("%s; try %d of %d in %.1f s", text, work.tries + 1, self._config.retry.attempts, delay)
        lane.again(work, delay)

    def _final(self, work: Work, error: Exception) -> bool:
        cause = error.cause if isinstance(error, StageError) else error
        # A message that cannot be read, fitted or unpacked today cannot be tomorrow: no further tries.
        hopeless = isinstance(cause, MessageError | RejectedError | GivenUpError)
        return hopeless or work.tries >= self._config.retry.attempts

    def _text(self, work: Work, error: Exception) -> str:
        if not isinstance(error, StageError):
            return str(error)
        sender = work.message.from_node if work.message is not None else ""
        return f"error in node {sender} executing {error.stage} for node {self._process.name}: {error.cause}"

    def _give_up(self, work: Work, text: str) -> None:
        """Publish the ERROR and the dead letter; acknowledge when the server has both."""
        log.error("%s; given up after %d tries", text, work.tries, exc_info=work.error)
        self.counts.dead += 1
        request_id = work.message.request_id if work.message is not None else ""
        error = Message(request_id, None, text, self._process.name, MessageType.ERROR)
        work.error = None
        work.finished = False
        work.confirmed = self._gone
        try:
            self._messaging.send_body(work, self._output, "!error", self._codec.encode(error))
            if self._config.retry.dead_letters:
                work.unconfirmed += 1
                self._bus.send_dead_letter(self._process.name, work.delivery, request_id, text, work.output_done)
        except MessageError as problem:
            work.error = problem
        work.finished = True
        if not work.unconfirmed:
            self._gone(work)

    def _gone(self, work: Work) -> None:
        lane: Lane = work.home
        if work.error is not None:
            log.error("neither result nor error of a message could be sent (%s); it is kept", work.error)
            lane.hand_back(work, _UNSENDABLE_PAUSE_S)
            return
        lane.release(work)
        self._bus.acknowledge(work.delivery)

    async def _respond(self, work: Work) -> None:
        """Give a response to whoever in this trigger waits for it."""
        lane: Lane = work.home
        limit = self._config.subscriber.max_inflated_bytes
        try:
            with self.traces.handling(work) if self.traces is not None else _UNTRACED:
                message = work.message = self._codec.decode(work.delivery.body, work.delivery.origin.subject, limit)
        except MessageError as error:
            log.error("a response was not readable: %s", error)
            self.counts.failed += 1
        else:
            if not self.responses.arrived(message):
                log.debug("nobody here waits for a response to %s", message.request_id)
            self.counts.succeeded += 1
        lane.release(work)
        self._bus.acknowledge(work.delivery)
