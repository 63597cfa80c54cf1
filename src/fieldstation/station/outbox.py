"""What a send loop needs of the store: the next rows, the wish to be told of new ones, and to forget what arrived."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fieldstation.station import frames
from fieldstation.station.agent import WriterLine
from fieldstation.station.store import QueueRow, Reader


class Outbox:
    """The deliveries of one uplink. Reading costs microseconds and is done in the loop; writing waits for the disk."""

    def __init__(self, data_dir: Path, uplink: str) -> None:
        self._folder = data_dir
        self._uplink = uplink
        # Patient: while the disk is full or the writer restarts, acknowledged rows wait here instead of being lost.
        self._line = WriterLine(data_dir, deadline_s=3600.0)
        self._reader: Reader | None = None

    def open(self) -> None:
        """Connect to the store (which makes it, when it is new)."""
        self._line.ask(("ping",))
        self._reader = Reader(self._folder / "active-message-queue.sqlite3", self._uplink)

    def close(self) -> None:
        """Let go of the store."""
        self._line.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def next_rows(self, count: int, after: tuple[int, int]) -> list[QueueRow]:
        """Return the next deliveries behind the numbers in `after`, one for each rank."""
        if self._reader is None:
            self.open()
        assert self._reader is not None
        return self._reader.next_rows(count, after)

    def refresh(self) -> None:
        """Look at the file anew: after an error the writer may have put another in its place."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._line.ask(("check",))

    async def forget(self, keys: list[tuple[int, int]]) -> None:
        """Delete deliveries (rank, seq) that were acknowledged; returns when that is durable."""
        await asyncio.to_thread(self._line.ask, ("done", self._uplink, keys))

    async def park(self, row: QueueRow, reason: str) -> None:
        """Set a delivery aside."""
        await asyncio.to_thread(self._line.ask, ("park", self._uplink, row.rank, row.seq, reason))

    async def news(self) -> AsyncIterator[None]:
        """Yield whenever something was stored; also after each connection to the writer, since one may be missed."""
        while True:
            with contextlib.suppress(OSError, ValueError):
                with frames.short_path(self._folder) as path:
                    reader, writer = await asyncio.open_unix_connection(path)
                with contextlib.closing(writer):
                    writer.write(frames.pack(["watch"]))
                    unpacker = frames.Unpacker()
                    yield
                    while data := await reader.read(65536):
                        if list(unpacker.feed(data)):
                            yield
            await asyncio.sleep(0.2)
