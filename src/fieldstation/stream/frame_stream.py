"""Messages of several hosts merged by arrival, as one async iterator."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

import grpc

from fieldstation.stream.wire.pb import daq_data_pb2 as pb

T = TypeVar("T")

_QUIET_ENDS = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


class FrameStream(Generic[T]):
    """Merged frames of several hosts, by arrival. Iterate it with `async for`, awaited or not.

    `trailers` holds the counters a server sent at the end of an every-frame stream, per host.
    """

    def __init__(
        self,
        convert: Callable[[pb.StreamImagesResponse], T],
        start: Callable[[FrameStream[T]], Awaitable[None]],
        *,
        ahead: int,
        stop: asyncio.Event | None,
        quiet: bool,
    ) -> None:
        """`start` begins the calls by `add`; `ahead` messages wait at most; `quiet`: a host that ends is no error."""
        self.trailers: dict[str, dict[str, str]] = {}
        self.convert = convert
        self._ahead = ahead
        self._stop = stop
        self._quiet = quiet
        self._waiting: deque[pb.StreamImagesResponse] = deque()
        self._arrived = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()
        self._open = 0
        self._error: BaseException | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._start: Callable[[FrameStream[T]], Awaitable[None]] | None = start

    def __await__(self) -> Generator[Any, None, FrameStream[T]]:
        return self._started().__await__()

    async def _started(self) -> FrameStream[T]:
        if self._start is not None:
            start, self._start = self._start, None
            await start(self)
        return self

    def __aiter__(self) -> FrameStream[T]:
        return self

    async def __anext__(self) -> T:
        batch = await self.next_responses(1)
        return self.convert(batch[0])

    async def next_responses(self, limit: int) -> list[pb.StreamImagesResponse]:
        """Return 1 to `limit` messages; StopAsyncIteration when all hosts have ended."""
        await self._started()
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._open == 0 or (self._stop is not None and self._stop.is_set()):
                await self.aclose()
                raise StopAsyncIteration
            self._arrived.clear()
            await self._wait()
        taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        self._space.set()
        return taken

    async def _wait(self) -> None:
        if self._stop is None:
            await self._arrived.wait()
            return
        # The caller's event may belong to anything; looking twice a second keeps the promise of one second.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self._arrived.wait()

    def add(self, group: asyncio.TaskGroup, host: str, call: Any) -> asyncio.Task[None]:
        """Receive one host's call, in a task of the client's group."""
        task = group.create_task(self._pump(host, call), name=f"frames of {host}")
        self._pumps.append(task)
        self._open += 1
        return task

    async def _pump(self, host: str, call: Any) -> None:
        try:
            async for response in call:
                self._waiting.append(response)
                self._arrived.set()
                if len(self._waiting) >= self._ahead:
                    self._space.clear()
                    await self._space.wait()
            self.trailers[host] = _texts(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            self.trailers[host] = _texts(error.trailing_metadata())
            if not (self._quiet and error.code() in _QUIET_ENDS):
                self._error = error
        finally:
            call.cancel()
            self._open -= 1
            self._arrived.set()

    async def aclose(self) -> None:
        """End the calls."""
        for pump in self._pumps:
            pump.cancel()
        if self._pumps:
            await asyncio.wait(self._pumps)
        self._pumps.clear()


def _texts(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}
