"""The bus in memory: for a node's unit test, without a server and without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from fieldstation.pipeline.bus import Bucket, Confirm, Objects, Subscription
from fieldstation.pipeline.model import Delivery, Origin


@dataclass(frozen=True, slots=True)
class Published:
    """One message as it was published."""

    subject: str
    body: bytes
    message_id: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that a process gave up on."""

    process: str
    delivery: Delivery
    request_id: str
    error: str


class _Input:
    def __init__(self, subject: str, consumer: str, deliver: Callable[[Delivery], None]) -> None:
        self.subject = subject
        self.consumer = consumer
        self.deliver = deliver
        self.open = True

    async def close(self) -> None:
        self.open = False


class MemoryBus:
    """Delivers within one event loop, deduplicates ids as a stream does, and remembers everything that happened.

    `refuse` can be set to an exception: publishing then fails with it, as when the server is full.
    """

    def __init__(self, limit: int = 1024 * 1024) -> None:
        self.limit = limit
        self.connected = True
        self.published: list[Published] = []
        self.dead: list[DeadLetter] = []
        self.handed_back: list[Delivery] = []
        self.refuse: Exception | None = None
        self.sent = asyncio.Event()  # set with everything that is published
        self._ids: set[str] = set()
        self._inputs: list[_Input] = []
        self._sequence = 0
        self._unsettled: dict[tuple[str, int], Delivery] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._buckets: dict[str, MemoryBucket] = {}
        self._objects: dict[str, MemoryObjects] = {}

    def send(
        self, subject: str, body: bytes, message_id: str, done: Confirm, headers: Mapping[str, str] | None = None
    ) -> None:
        """Store and hand on; confirmed in the next turn of the loop, as a server's answer would be."""
        loop = asyncio.get_running_loop()
        if self.refuse is not None:
            loop.call_soon(done, self.refuse)
            return
        if message_id not in self._ids:
            self._ids.add(message_id)
            self.published.append(Published(subject, body, message_id))
            self.sent.set()
            self.inject(subject, body, (headers or {}).get("traceparent", ""))
        loop.call_soon(done, None)

    def inject(self, subject: str, body: bytes, trace: str = "") -> None:
        """Deliver a message to everybody who listens on `subject`: once per consumer name."""
        self._sequence += 1
        served: set[str] = set()
        for entry in self._inputs:
            if entry.open and entry.subject == subject and entry.consumer not in served:
                served.add(entry.consumer)
                self._hand_out(entry, Delivery(body, Origin(entry.consumer, 1, self._sequence, subject), trace=trace))

    def send_dead_letter(self, process: str, delivery: Delivery, request_id: str, error: str, done: Confirm) -> None:
        """Keep it in `dead`."""
        self.dead.append(DeadLetter(process, delivery, request_id, error))
        asyncio.get_running_loop().call_soon(done, None)

    async def subscribe(
        self, subject: str, durable: str, *, shared: bool, deliver: Callable[[Delivery], None]
    ) -> Subscription:
        """Listen from now on."""
        consumer = durable if shared else f"{durable}-{len(self._inputs)}"
        entry = _Input(subject, consumer, deliver)
        self._inputs.append(entry)
        return entry

    async def subscribe_replays(self, process: str, deliver: Callable[[Delivery], None]) -> Subscription:
        """Listen for `replay`."""
        return await self.subscribe(f"replay.{process}", f"replay-{process}", shared=True, deliver=deliver)

    def replay(self, letter: DeadLetter) -> None:
        """Put a dead letter back for its process."""
        self.dead.remove(letter)
        old = letter.delivery.origin
        for entry in self._inputs:
            if entry.open and entry.subject == f"replay.{letter.process}":
                origin = Origin(old.consumer, old.created, old.sequence, old.subject, old.replay + 1)
                self._hand_out(entry, Delivery(letter.delivery.body, origin, trace=letter.delivery.trace))
                return

    def acknowledge(self, delivery: Delivery) -> None:
        """Settled."""
        self._settled(delivery)

    def hand_back(self, delivery: Delivery, delay_s: float = 0) -> None:
        """Remembered in `handed_back`; not delivered again by itself, so that a test ends."""
        self.handed_back.append(delivery)
        self._settled(delivery)

    def in_progress(self, delivery: Delivery) -> None:
        """Memory has no ack wait."""

    async def quiet(self) -> None:
        """Wait until every delivery is settled."""
        await self._quiet.wait()

    async def bucket(self, name: str) -> Bucket:
        """Open the bucket, made when it is missing."""
        return self._buckets.setdefault(name, MemoryBucket())

    async def objects(self, name: str) -> Objects:
        """Open the store, made when it is missing."""
        return self._objects.setdefault(name, MemoryObjects())

    async def flush(self) -> None:
        """Nothing is buffered."""

    async def run(self) -> None:
        """Nothing to keep going."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Closed."""
        self.connected = False

    def _hand_out(self, entry: _Input, delivery: Delivery) -> None:
        self._unsettled[delivery.origin.consumer, delivery.origin.sequence] = delivery
        self._quiet.clear()
        asyncio.get_running_loop().call_soon(entry.deliver, delivery)

    def _settled(self, delivery: Delivery) -> None:
        self._unsettled.pop((delivery.origin.consumer, delivery.origin.sequence), None)
        if not self._unsettled:
            self._quiet.set()


class MemoryBucket:
    """See bus.Bucket."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._watchers: list[asyncio.Queue[tuple[str, str | None] | None]] = []

    async def get(self, key: str) -> str | None:
        """Return the value, or None."""
        return self.values.get(key)

    async def put(self, key: str, value: str) -> None:
        """Set the value and tell watchers."""
        self.values[key] = value
        self._tell(key, value)

    async def create(self, key: str, value: str) -> bool:
        """Set the value unless there is one."""
        if key in self.values:
            return False
        await self.put(key, value)
        return True

    async def delete(self, key: str) -> None:
        """Forget the value and tell watchers."""
        self.values.pop(key, None)
        self._tell(key, None)

    async def keys(self) -> list[str]:
        """Return the keys."""
        return list(self.values)

    async def watch(self) -> AsyncIterator[tuple[str, str | None] | None]:
        """Yield all there is, a None, then changes."""
        queue: asyncio.Queue[tuple[str, str | None] | None] = asyncio.Queue()
        for key, value in self.values.items():
            queue.put_nowait((key, value))
        queue.put_nowait(None)
        self._watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    def _tell(self, key: str, value: str | None) -> None:
        for queue in self._watchers:
            queue.put_nowait((key, value))


class MemoryObjects:
    """See bus.Objects."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def exists(self, key: str) -> bool:
        """True when there is one."""
        return key in self.values

    async def get(self, key: str) -> bytes | None:
        """Return the bytes, or None."""
        return self.values.get(key)

    async def put(self, key: str, payload: bytes) -> None:
        """Store or replace."""
        self.values[key] = payload

    async def create(self, key: str, payload: bytes) -> bool:
        """Store unless there is one."""
        if key in self.values:
            return False
        self.values[key] = payload
        return True

    async def delete(self, key: str) -> bool:
        """Delete; False when there was none."""
        return self.values.pop(key, None) is not None

    async def list(self) -> list[str]:
        """Return the names."""
        return list(self.values)
