"""A recorded run, frame after frame in the order and at the pace of its times, or faster or slower."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

from fieldstation.stream.config import ServerConfig
from fieldstation.stream.errors import DataDirError
from fieldstation.stream.model import Frame, HpIo, Wanted
from fieldstation.stream.source import Publish, Source
from fieldstation.stream.sources.history import extents, merged
from fieldstation.stream.sources.pff import check_data_dir
from fieldstation.stream.sources.run import RunFollower

_BATCH = 64
_ALL = Wanted(movie=True, pulse_height=True, modules=frozenset(), interval_s=0)


class ReplaySource:
    """Publishes the frames of a run (or of the newest run of a data directory). Begins when the first client is there.

    `speed` 2 is twice as fast as it was recorded, 0 as fast as it goes.
    """

    def __init__(self, request: HpIo, *, speed: float, loop: bool) -> None:
        self._request = request
        self._speed = speed
        self._loop = loop
        self._wanted = asyncio.Event()
        self._publish: Publish | None = None
        self._published = 0
        self._ended = False

    async def start(self, publish: Publish) -> None:
        """Check that there are frames."""
        root = await asyncio.to_thread(check_data_dir, self._request.data_dir)
        if not await asyncio.to_thread(lambda: list(itertools.islice(self._frames(root), 1))):
            raise DataDirError(path=self._request.data_dir, problem="holds no frame to replay")
        self._publish = publish

    def _frames(self, root: Path) -> itertools.chain[Frame]:
        follower = RunFollower(root, self._request.modules)
        follower.rescan()
        while follower.read(every=False) or follower.behind:
            pass  # its positions are then the ends of the files
        ends = extents(follower)
        follower.close()
        return itertools.chain(merged(_ALL, {}, ends))

    async def run(self) -> None:
        """Publish to the end, again and again when told to; then wait."""
        assert self._publish is not None
        await self._wanted.wait()
        root = Path(self._request.data_dir)
        while True:
            frames = await asyncio.to_thread(self._frames, root)
            began: float | None = None
            first_time = 0.0
            while batch := await asyncio.to_thread(lambda: list(itertools.islice(frames, _BATCH))):  # noqa: B023 - the list is made before the loop goes on
                for frame in batch:
                    if self._speed > 0 and frame.time > 0:
                        if began is None:
                            began, first_time = time.monotonic(), frame.time
                        due = began + (frame.time - first_time) / self._speed
                        delay = due - time.monotonic()
                        if delay > 0:
                            await asyncio.sleep(delay)
                    self._publish([frame])
                    self._published += 1
                await asyncio.sleep(0)
            if not self._loop:
                self._ended = True
                await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing is held open between two batches."""

    def demand(self, readers: int, every: bool) -> None:
        """Begin with the first client."""
        if readers:
            self._wanted.set()

    def history(self) -> None:
        """The replay is the history."""

    def health(self) -> dict[str, object]:
        """How many frames were replayed, and whether that was all."""
        return {"ok": True, "replayed": self._published, "ended": self._ended}


def replay(request: HpIo, config: ServerConfig) -> Source:
    """Return the source of `fieldstation stream replay`."""
    return ReplaySource(request, speed=config.replay_speed, loop=config.replay_loop)
