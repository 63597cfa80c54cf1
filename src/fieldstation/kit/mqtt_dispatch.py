"""Hand received messages to handlers: in order per subscription, acknowledged when every handler has returned."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fieldstation.kit.mqtt_model import Message, QoS

log = logging.getLogger(__name__)

Handler = Callable[[Message], Awaitable[None] | None]
Done = Callable[[], None]


@dataclass(slots=True)
class _Open:
    """A message that is not acknowledged yet, and how many handlers still work on it."""

    acknowledge: Done
    handlers: int

    def handled(self) -> None:
        self.handlers -= 1


class Acknowledgements:
    """Acknowledges messages in the order they came (MQTT 3.1.1, section 4.6), each once all its handlers are done."""

    def __init__(self) -> None:
        self._open: deque[_Open] = deque()

    def expect(self, acknowledge: Done, handlers: int) -> Done:
        """Return what each of `handlers` calls when it is done; a message nobody handles is acknowledged too."""
        entry = _Open(acknowledge, handlers)
        self._open.append(entry)

        def done() -> None:
            entry.handled()
            self._flush()

        self._flush()
        return done

    def _flush(self) -> None:
        while self._open and self._open[0].handlers <= 0:
            self._open.popleft().acknowledge()


class Subscription:
    """One pattern and its handler. `dropped` counts QoS 0 messages that a slow handler never saw."""

    def __init__(self, pattern: str, handler: Handler, qos: QoS, max_waiting: int) -> None:
        self.pattern = pattern
        self.qos = qos
        self.dropped = 0
        self.task: asyncio.Task[None] | None = None
        self._handler = handler
        self._waiting: deque[tuple[Message, Done | None]] = deque()
        self._max_waiting = max_waiting
        self._arrived = asyncio.Event()

    def put(self, message: Message, done: Done | None) -> None:
        """Queue `message`; the broker bounds how many of QoS 1 and 2 wait, we those of QoS 0."""
        if len(self._waiting) >= self._max_waiting and self._waiting[0][1] is None:
            self._waiting.popleft()
            self.dropped += 1
            if self.dropped in (1, 100) or self.dropped % 10_000 == 0:
                log.warning("the handler of %s is too slow: %d messages dropped", self.pattern, self.dropped)
        self._waiting.append((message, done))
        self._arrived.set()

    async def work(self) -> None:
        """Call the handler for each message until cancelled; one that raises is logged, its message is done with."""
        is_async = inspect.iscoroutinefunction(self._handler)
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                message, done = self._waiting.popleft()
                try:
                    if is_async:
                        result = self._handler(message)
                    else:
                        result = await asyncio.to_thread(self._handler, message)
                    if inspect.isawaitable(result):
                        await result
                except Exception:
                    log.exception("the handler of %s failed on a message to %s", self.pattern, message.topic)
                if done is not None:
                    done()

    def end(self) -> None:
        """Stop working; messages that wait are let go (the broker keeps those of QoS 1 and 2 in a kept session)."""
        if self.task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has already ended
                self.task.cancel()
        for _, done in self._waiting:
            if done is not None:
                done()
        self._waiting.clear()
