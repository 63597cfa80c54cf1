"""A TCP line that a test can cut, hold, slow, and let connections overtake each other on."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

from fieldstation.core.blocking import Portal

T = TypeVar("T")
Waiting = asyncio.Queue[tuple[float, bytes]]  # chunks of one way and when they are due

CHUNK = 65536
CHUNKS = 64  # that wait for their time on one way of one connection; then the sender is held up


class Line:
    """A TCP line to `port` of this machine: clients connect to `self.port`. Bytes stay in order within a connection.

    `delay_s` is added to every chunk, each way. With `spread_s` each connection is slower than that by a time of its
    own, up to so much, so that a later connection overtakes an earlier one; the times come from `seed`.
    """

    def __init__(self, port: int, delay_s: float = 0.0, *, spread_s: float = 0.0, seed: int = 0) -> None:
        self.delay_s = delay_s
        self.spread_s = spread_s
        self.connections = 0
        self._target = port
        self._random = random.Random(seed)
        self._held = False
        self._open: dict[asyncio.Task[None], _Connection] = {}
        # Keeps the port while nobody listens on it: connections are refused then, and nobody else can take it.
        self._place = _bound(0)
        self.port = int(self._place.getsockname()[1])
        self._listening = False
        self._portal = Portal()
        self._do(self._listen())

    def cut(self, share: float = 1.0) -> None:
        """Break all connections, or this share of them, chosen by the seed; new ones are taken."""
        self._do(self._cut(share))

    def refuse(self, refusing: bool = True) -> None:
        """Break all connections and refuse new ones, as when the server is down."""
        self._do(self._refuse(refusing))

    def hold(self, holding: bool = True) -> None:
        """Swallow whatever is sent from now on, both ways; after that the connections of that time are broken."""
        self._do(self._hold(holding))

    def strand(self, share: float = 1.0) -> None:
        """Leave the connections of now half-open: nothing passes on them any more, and neither end is told."""
        self._do(self._strand(share))

    def close(self) -> None:
        """End everything; any number of times."""
        if self._place.fileno() >= 0:
            self._do(self._refuse(True))
            self._place.close()
            self._portal.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._portal.call(work, 10)

    async def _listen(self) -> None:
        self._listener = _bound(self.port)
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._listening = True
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:  # it was gone before we came to it
            return
        near.setblocking(False)
        connection = _Connection(self, self._random.random())
        task = asyncio.get_running_loop().create_task(connection.carry(near))
        self._open[task] = connection
        task.add_done_callback(functools.partial(self._ended, near))

    def _ended(self, near: socket.socket, task: asyncio.Task[None]) -> None:
        del self._open[task]
        near.close()  # a task that was cancelled before its first step has not touched it

    async def _cut(self, share: float) -> None:
        await self._end(self._some(share))

    async def _refuse(self, refusing: bool) -> None:
        if not refusing and not self._listening:
            await self._listen()
        elif refusing and self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            await self._end(list(self._open))

    async def _hold(self, holding: bool) -> None:
        self._held = holding
        if not holding:
            await self._end(list(self._open))

    async def _strand(self, share: float) -> None:
        for task in self._some(share):
            self._open[task].stranded = True

    def _some(self, share: float) -> list[asyncio.Task[None]]:
        return [task for task in self._open if self._random.random() < share]

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.sleep(0)  # transports let go of their sockets one turn of the loop after they are told

    # What a connection asks.

    def delay(self, slowness: float) -> float:
        """How long a chunk takes on a connection of this slowness (0 to 1)."""
        return self.delay_s + slowness * self.spread_s

    def swallows(self) -> bool:
        """Tell whether nothing passes on any connection."""
        return self._held

    @property
    def target(self) -> int:
        """The port of the server."""
        return self._target


class _Connection:
    """One connection through the line; it ends on both sides when either end closes it, or it is cancelled."""

    def __init__(self, line: Line, slowness: float) -> None:
        self.stranded = False
        self._line = line
        self._slowness = slowness
        self._over = asyncio.Event()

    async def carry(self, near: socket.socket) -> None:
        """Hold the connection that came in, until it is over."""
        reader, writer = await asyncio.open_connection(sock=near)
        try:
            await asyncio.sleep(self._line.delay(self._slowness) if self._line.spread_s else 0)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._line.target)
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        self._line.connections += 1
        tasks = []
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            waiting: Waiting = asyncio.Queue(CHUNKS)
            tasks += [asyncio.create_task(self._read(source, waiting)), asyncio.create_task(self._write(waiting, sink))]
        try:
            await self._over.wait()
        finally:
            writer.transport.abort()
            far_writer.transport.abort()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _swallows(self) -> bool:
        return self.stranded or self._line.swallows()

    async def _read(self, source: asyncio.StreamReader, waiting: Waiting) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if not self._swallows():
                    await waiting.put((asyncio.get_running_loop().time() + self._line.delay(self._slowness), data))
        if not self._swallows():  # what is half-open or held does not hear of an end either
            await waiting.put((0.0, b""))

    async def _write(self, waiting: Waiting, sink: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while True:
                due, data = await waiting.get()
                if due > clock():
                    await asyncio.sleep(due - clock())
                if not data:
                    break
                if not self._swallows():
                    sink.write(data)
                    await sink.drain()
        self._over.set()


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made
