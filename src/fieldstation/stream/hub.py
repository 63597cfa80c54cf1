"""Fan out frames to clients: encoded once, newest wins unless a client asked for every frame; slow ones hold nobody.

For every client: frames offered = frames sent + frames dropped + frames still waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from fieldstation.stream.errors import FrameFormatError
from fieldstation.stream.model import Frame, ImageType, Wanted
from fieldstation.stream.series import Series

Key = tuple[int, str, int | None]  # module, product, quabo: the places of which the newest frame is kept


def place_of(frame: Frame) -> Key:
    """Return where a frame is from."""
    return (frame.module_id, frame.product or f"{frame.shape}{frame.bytes_per_pixel}", frame.quabo)


MAX_BATCH = 64


class SharedFrame:
    """A frame on its way to all clients: of which class and place it is, and the complete response message.

    The message may come as what encodes it: then that is done at its first use, once for everybody.
    """

    __slots__ = ("_payload", "key", "type")

    def __init__(self, image_type: ImageType, key: Key, payload: bytes | Callable[[], bytes]) -> None:
        self.type = image_type
        self.key = key
        self._payload = payload

    @property
    def payload(self) -> bytes:
        """The complete response message."""
        if not isinstance(self._payload, bytes):
            self._payload = self._payload()
        return self._payload

    @property
    def encoded(self) -> bool:
        """True once `payload` costs nothing."""
        return isinstance(self._payload, bytes)

    def encode(self) -> None:
        """Encode now, so that whoever sends it does not wait for that; one that cannot be is left to the sender."""
        with contextlib.suppress(FrameFormatError):
            _ = self.payload


@dataclass(slots=True)
class Counters:
    """What happened to the frames offered to one client."""

    offered: int = 0
    sent: int = 0
    dropped: int = 0


class Subscription:
    """One client's view of the hub. `end` makes `ready` raise; the subclass decides what is kept while it is slow."""

    def __init__(self, wanted: Wanted, peer: str) -> None:
        self.wanted = wanted
        self.peer = peer
        self.counters = Counters()
        self.live = True  # false while it reads history: offers are not for it yet
        self.on_end: Callable[[], object] | None = None
        self.ended_by: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    mode = "newest"

    @property
    def every(self) -> bool:
        """True for a client that needs each frame."""
        return self.mode == "every"

    def offer(self, shared: SharedFrame) -> None:
        """Take note of a new frame; never waits."""
        raise NotImplementedError

    def take(self) -> Iterator[SharedFrame]:
        """Yield what is to be sent now, each popped at the moment it is asked for."""
        raise NotImplementedError

    async def ready(self) -> None:
        """Wait until there is something to send and the client's interval has passed."""
        raise NotImplementedError

    def end(self, reason: Exception) -> None:
        """Make the stream end with `reason`, wherever it waits."""
        if self.ended_by is None:
            self.ended_by = reason
            self._wake()
            if self.on_end is not None:
                self.on_end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _sleep(self) -> asyncio.Future[None]:
        # A future of our own, not an asyncio.Event: this runs for every frame and client.
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter


class Newest(Subscription):
    """The documented way: per interval one burst with the newest frame of each module and product."""

    def __init__(self, wanted: Wanted, peer: str) -> None:
        super().__init__(wanted, peer)
        self._pending: dict[Key, SharedFrame] = {}
        self._next_burst = 0.0

    def offer(self, shared: SharedFrame) -> None:
        """Replace an older frame of the same module and product."""
        self.counters.offered += 1
        if shared.key in self._pending:
            self.counters.dropped += 1
        self._pending[shared.key] = shared
        self._wake()

    async def ready(self) -> None:
        """Wait out the interval, then for a frame."""
        delay = self._next_burst - time.monotonic()
        while delay > 0:
            if self.ended_by is not None:
                raise self.ended_by
            await asyncio.sleep(delay)
            delay = self._next_burst - time.monotonic()
        while not self._pending and self.ended_by is None:
            await self._sleep()
        if self.ended_by is not None:
            raise self.ended_by
        self._next_burst = time.monotonic() + self.wanted.interval_s

    def take(self) -> Iterator[SharedFrame]:
        """Yield each waiting frame once; what arrives meanwhile belongs to the next burst, or replaces."""
        for key in list(self._pending):
            self.counters.sent += 1
            yield self._pending.pop(key)


class Every(Subscription):
    """All frames, in order. At most `limit` wait; then new ones are dropped and counted until there is room."""

    mode = "every"

    def __init__(self, wanted: Wanted, peer: str, limit: int) -> None:
        super().__init__(wanted, peer)
        self.limit = limit
        self._queue: deque[SharedFrame] = deque()
        self._gaps: deque[tuple[SharedFrame, int]] = deque()  # before which frame how many are missing
        self._missing = 0

    def offer(self, shared: SharedFrame) -> None:
        """Queue the frame, or count it as dropped."""
        self.counters.offered += 1
        if len(self._queue) >= self.limit:
            self.counters.dropped += 1
            self._missing += 1
            return
        if self._missing:
            self._gaps.append((shared, self._missing))
            self._missing = 0
        self._queue.append(shared)
        self._wake()

    def go_live(self) -> None:
        """Take offers from now on."""
        self.live = True

    def gap_before(self, shared: SharedFrame) -> int:
        """Return how many frames were dropped between the previous one sent and this one."""
        if self._gaps and self._gaps[0][0] is shared:
            return self._gaps.popleft()[1]
        return 0

    def following(self) -> SharedFrame | None:
        """The frame that will be taken next, if it is here."""
        return self._queue[0] if self._queue else None

    async def ready(self) -> None:
        """Wait for a frame."""
        while not self._queue and self.ended_by is None:
            await self._sleep()
        if self.ended_by is not None:
            raise self.ended_by

    def take(self) -> Iterator[SharedFrame]:
        """Yield up to a batch of waiting frames."""
        for _ in range(min(len(self._queue), MAX_BATCH)):
            self.counters.sent += 1
            yield self._queue.popleft()


class Hub:
    """Keeps the newest frame of every place and hands each new frame to the subscriptions that want it."""

    def __init__(
        self, encode: Callable[[Frame, int], bytes], encode_series: Callable[[Series, int], Sequence[bytes]]
    ) -> None:
        """Both make the response message, or messages, of what was received at a Unix time in nanoseconds."""
        self._encode = encode
        self._encode_series = encode_series
        self.newest: dict[Key, SharedFrame] = {}
        self.subscriptions: list[Subscription] = []
        self.produced = 0
        self.on_demand: Callable[[], None] | None = None
        self.past = {"newest": Counters(), "every": Counters()}  # of clients that left
        self.left = asyncio.Event()  # set whenever one leaves

    @property
    def want_every(self) -> bool:
        """True while somebody needs each frame."""
        return any(subscription.every for subscription in self.subscriptions)

    def publish(self, frames: Sequence[Frame]) -> None:
        """Hand new frames to all clients; never waits for one."""
        if isinstance(frames, Series):
            image_type, key = frames.first.type, place_of(frames.first)
            for payload in self._encode_series(frames, time.time_ns()):
                self.publish_shared(SharedFrame(image_type, key, payload))
        else:
            for frame in frames:
                self.publish_shared(self.share(frame))

    def publish_shared(self, shared: SharedFrame) -> None:
        """Hand over one frame."""
        self.produced += 1
        self.newest[shared.key] = shared
        image_type, module_id = shared.type, shared.key[0]
        for subscription in self.subscriptions:
            if subscription.live and subscription.wanted.matches(image_type, module_id):
                subscription.offer(shared)

    def share(self, frame: Frame) -> SharedFrame:
        """Wrap a frame that was received now."""
        return SharedFrame(frame.type, place_of(frame), partial(self._encode, frame, time.time_ns()))

    def add(self, subscription: Subscription) -> None:
        """Begin to serve a client; a newest-wins client gets what is already known at once."""
        if not subscription.every:
            for shared in self.newest.values():
                if subscription.wanted.matches(shared.type, shared.key[0]):
                    subscription.offer(shared)
        self.subscriptions.append(subscription)
        self._tell()

    def remove(self, subscription: Subscription) -> None:
        """Forget a client; its counters are kept in `past`."""
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)
            counters = subscription.counters
            past = self.past[subscription.mode]
            past.offered += counters.offered
            past.sent += counters.sent
            past.dropped += counters.offered - counters.sent  # what still waited will not be sent
            self.left.set()
        self._tell()

    def clear(self) -> None:
        """Forget all frames: the source changes."""
        self.newest.clear()

    def _tell(self) -> None:
        if self.on_demand is not None:
            self.on_demand()
