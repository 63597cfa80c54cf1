"""What a run already holds, read from its files, with an exact switch to the live stream."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from fieldstation.stream.model import PRODUCTS, Frame, Wanted
from fieldstation.stream.pff import PffName
from fieldstation.stream.sources.run import Key, RunFollower
from fieldstation.stream.sources.tail import DamagedStretch, Position, Tail

_BATCH = 256
_ROUNDS = 50  # a client that never catches up goes live anyway, and its drops are counted


@dataclass(frozen=True, slots=True)
class Extent:
    """The files of a product, and how far the last of them is to be read."""

    files: tuple[tuple[Path, PffName], ...]
    until: Position | None


def extents(follower: RunFollower) -> dict[Key, Extent]:
    """Return what the follower has read up to now."""
    return {key: Extent(tuple(tail.files), tail.position()) for key, tail in follower.products.items()}


def frames_between(module_id: int, begin: Position | None, extent: Extent) -> Iterator[Frame]:
    """Yield the frames from `begin` (None: the front) up to the extent's end, across files."""
    if extent.until is None:
        return
    started = begin is None
    ignored: list[DamagedStretch] = []
    for path, name in extent.files:
        if not started and begin is not None and path != begin.path:
            continue
        at = begin if not started else None
        started = True
        until = extent.until.offset if path == extent.until.path else None
        tail = Tail(path, name, module_id, ignored.append, at)
        try:
            while (frames := tail.read(64, until)) or tail.behind:
                yield from frames
        except OSError:
            pass  # the file was deleted or its disk went away: the rest of the run follows
        finally:
            tail.close()
        if until is not None:
            return


def merged(wanted: Wanted, begin: dict[Key, Position], end: dict[Key, Extent]) -> Iterator[Frame]:
    """Yield the frames of all wanted products in the order of their times."""
    streams = [
        frames_between(key[0], begin.get(key), extent)
        for key, extent in end.items()
        if wanted.matches(PRODUCTS[key[1]].type, key[0])
    ]
    return heapq.merge(*streams, key=lambda frame: frame.time)


class Follows(Protocol):
    """A source that can run a job between two reads; see PffSource.in_thread."""

    async def in_thread(self, job: Callable[[RunFollower], Any], then: Callable[[Any], Any]) -> None: ...  # noqa: D102 - a protocol: the name says it


class RunHistory:
    """The files that a PffSource follows."""

    def __init__(self, source: Follows) -> None:
        self._source = source

    async def catch_up(self, wanted: Wanted, room: int, go_live: Callable[[], None]) -> AsyncIterator[Sequence[Frame]]:
        """Read up to where the source is now; as often as needed until little is left, then switch."""
        done: dict[Key, Position] = {}
        live = False
        target: dict[Key, Extent] = {}

        def arrived(found: dict[Key, Extent]) -> None:
            nonlocal live, target
            target = found
            # In the loop, in order with the frames published: all before this moment is in `found`, all after is live.
            if last_round or _left(done, found, wanted) <= room:
                live = True
                go_live()

        for attempt in range(_ROUNDS):
            last_round = attempt == _ROUNDS - 1
            await self._source.in_thread(extents, arrived)
            frames = merged(wanted, done, target)
            while batch := await asyncio.to_thread(lambda: list(islice(frames, _BATCH))):  # noqa: B023 - used at once
                yield batch
            done = {key: extent.until for key, extent in target.items() if extent.until is not None}
            if live:
                return


def _left(done: dict[Key, Position], target: dict[Key, Extent], wanted: Wanted) -> float:
    """Return about how many frames lie between two states; infinite when a file lies between."""
    left = 0.0
    for key, extent in target.items():
        product = PRODUCTS[key[1]]
        if extent.until is None or not wanted.matches(product.type, key[0]):
            continue
        begin = done.get(key)
        if begin is None:
            begin = Position(extent.files[0][0], 0, 0)
        if begin.path != extent.until.path:
            return float("inf")
        left += (extent.until.offset - begin.offset) / product.image_bytes
    return left
