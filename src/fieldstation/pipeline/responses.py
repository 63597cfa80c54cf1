"""Which response belongs to which request of a trigger: no race with the answer, no leak, no answer lost."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque

from fieldstation.pipeline.errors import RequestTimeoutError
from fieldstation.pipeline.model import Message

KEPT_S = 600.0  # an entry nobody touched for so long is dropped
KEPT = 10_000  # entries; the oldest goes first
PER_REQUEST = 64  # answers kept for one request


class _Entry:
    __slots__ = ("answers", "touched", "waiters")

    def __init__(self) -> None:
        self.answers: deque[Message] = deque(maxlen=PER_REQUEST)
        self.waiters: deque[asyncio.Future[Message | None]] = deque()
        self.touched = time.monotonic()


class Responses:
    """Keeps answers to the requests this trigger replica sent until they are asked for."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def expect(self, request_id: str) -> None:
        """Keep answers to `request_id` from now on, also before somebody waits for them."""
        entry = self._entries.get(request_id)
        if entry is None:
            entry = self._entries[request_id] = _Entry()
        entry.touched = time.monotonic()
        self._entries.move_to_end(request_id)
        self._forget_old(entry.touched)

    def arrived(self, message: Message) -> bool:
        """Hand over an answer; False when the request is not ours."""
        entry = self._entries.get(message.request_id)
        if entry is None:
            return False
        while entry.waiters:
            waiter = entry.waiters.popleft()
            if not waiter.done():
                waiter.set_result(message)
                return True
        entry.answers.append(message)
        return True

    async def next(self, request_id: str, timeout_s: float | None = None) -> Message | None:
        """Return the next answer to `request_id`; None when the node shuts down; RequestTimeoutError in time."""
        self.expect(request_id)
        entry = self._entries[request_id]
        if entry.answers:
            return entry.answers.popleft()
        if self._closed:
            return None
        waiter: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError as error:
            raise RequestTimeoutError(request_id=request_id, timeout_s=timeout_s) from error
        finally:
            if waiter in entry.waiters:
                entry.waiters.remove(waiter)
            entry.touched = time.monotonic()

    def forget(self, request_id: str) -> None:
        """Drop what is kept for `request_id`; later answers are not ours any more."""
        self._entries.pop(request_id, None)

    def close(self) -> None:
        """Wake everybody who waits, with None."""
        self._closed = True
        for entry in self._entries.values():
            for waiter in entry.waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _forget_old(self, now: float) -> None:
        while self._entries:
            request_id, entry = next(iter(self._entries.items()))
            stale = now - entry.touched > KEPT_S
            if entry.waiters or not (stale or len(self._entries) > KEPT):
                return
            del self._entries[request_id]
