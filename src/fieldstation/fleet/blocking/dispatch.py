"""Brings events from the event loop to handlers, which are users' code and may block, in a thread of their own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterable

from fieldstation.fleet.blocking.handlers import AbstractEventHandler
from fieldstation.fleet.client.events import Event


class Dispatcher:
    """Calls every handler with every event, in the order in which handlers were added and events arrived."""

    def __init__(self, handlers: Iterable[AbstractEventHandler] = (), logger: logging.Logger | None = None) -> None:
        self.logger = logger or logging.getLogger("fieldstation.fleet.client")
        self._handlers = list(handlers)
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def addEventHandler(self, handler: AbstractEventHandler) -> None:
        """Have `handler` called for events from now on, after those that were added before it."""
        self._handlers.append(handler)

    def handleEvent(self, event: Event) -> None:
        """Call all handlers here and now."""
        for handler in tuple(self._handlers):
            try:
                handler.handleEvent(event)
            except Exception:
                self.logger.exception("%s failed on %s of %s", type(handler).__name__, event.event, event.serial)

    def later(self, event: Event) -> None:
        """Call all handlers in the events' thread; costs nothing while there is no handler."""
        if not self._handlers:
            return
        if self._thread is None:
            # A daemon: a handler that blocks for ever must not keep the program from ending.
            self._thread = threading.Thread(target=self._work, name="fleet-events", daemon=True)
            self._thread.start()
        self._queue.put(event)

    def _work(self) -> None:
        while (event := self._queue.get()) is not None:
            self.handleEvent(event)

    def close_handlers(self) -> None:
        """Let the thread finish what is queued, and tell the handlers that it is over."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(2)
        for handler in self._handlers:
            handler.exit()
        self._handlers.clear()
