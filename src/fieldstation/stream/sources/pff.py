"""The file source: a thread that waits for the kernel's notice, reads what grew and hands frames to the event loop.

A thread, because a read from a disk that hangs must not stop the loop: clients take a server whose ping is late for
dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fieldstation.stream.errors import DataDirError, SourceFailedError
from fieldstation.stream.model import Frame, HpIo
from fieldstation.stream.source import History, Publish
from fieldstation.stream.sources.history import RunHistory
from fieldstation.stream.sources.inotify import Inotify
from fieldstation.stream.sources.run import RunFollower

log = logging.getLogger(__name__)
T = TypeVar("T")

RESCAN_S = 1.0
# inotify does not see what another host writes to a network disk, so everything is looked at this often, too.
SWEEP_S = 0.25
_BATCHES_AHEAD = 4


def check_data_dir(data_dir: str) -> Path:
    """Return the folder, or raise DataDirError: missing, a file, unreadable."""
    path = Path(data_dir)
    if not data_dir or not path.exists():
        raise DataDirError(path=data_dir, problem="does not exist")
    if not path.is_dir():
        raise DataDirError(path=data_dir, problem="is not a directory")
    try:
        with os.scandir(path):
            pass
    except OSError as error:
        raise DataDirError(path=data_dir, problem=f"cannot be read: {error.strerror}") from error
    return path


class PffSource:
    """Frames of the runs under a data directory. `status_pipe` is the name of a FIFO in a run folder that wakes us."""

    def __init__(self, request: HpIo, *, status_pipe: str | None = None) -> None:
        self._request = request
        self._status_pipe = status_pipe
        self._every = False
        self._stopping = False
        self._jobs: list[Callable[[], None]] = []
        self._wake_read, self._wake_write = -1, -1
        self._thread: threading.Thread | None = None
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()  # an entry for each batch that may yet be handed over
        for _ in range(_BATCHES_AHEAD):
            self._room.put(None)
        self._failed: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._publish: Publish | None = None
        self.follower: RunFollower | None = None
        self._set_aside = 0

    async def start(self, publish: Publish) -> None:
        """Scan once and publish the newest frame of each product; DataDirError when the directory is unusable."""
        root = await asyncio.to_thread(check_data_dir, self._request.data_dir)
        self.follower = RunFollower(root, self._request.modules)
        self._loop = asyncio.get_running_loop()
        self._publish = publish
        self._failed = self._loop.create_future()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(
            target=self._guarded, args=(self.follower, ready), name="stream-files", daemon=True
        )
        self._thread.start()
        await ready

    async def run(self) -> None:
        """Wait; the thread works. Raises SourceFailedError when the thread died."""
        assert self._failed is not None
        await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """End the thread. One that hangs in a read from a dead disk is left behind; it is a daemon."""
        self._stopping = True
        self._wake()
        if self._thread is not None:
            deadline = time.monotonic() + 2
            while self._thread.is_alive() and time.monotonic() < deadline:
                self._room.put(None)  # it may wait for us to take a batch
                await asyncio.sleep(0.005)
            if not self._thread.is_alive():
                for descriptor in (self._wake_read, self._wake_write):
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
                self._wake_read = self._wake_write = -1
        if self._failed is not None and not self._failed.done():
            self._failed.cancel()

    def demand(self, readers: int, every: bool) -> None:
        """Read each frame from now on, or only the newest of each product."""
        if every != self._every:
            self._every = every
            self._wake()

    def history(self) -> History | None:
        """The files of the run."""
        return RunHistory(self)

    def health(self) -> dict[str, object]:
        """`ok` is false while the directory cannot be read; `set_aside` counts damaged stretches."""
        follower = self.follower
        problem = follower.problem if follower else "not started"
        return {
            "ok": problem is None,
            "problem": problem,
            "set_aside": self._set_aside,
            "refused_links": len(follower.refused) if follower else 0,
            "products": len(follower.products) if follower else 0,
        }

    async def in_thread(self, job: Callable[[RunFollower], T], then: Callable[[T], Any]) -> None:
        """Run `job` between two reads and `then` in the loop, in order with the frames published before and after."""
        assert self._loop is not None
        assert self.follower is not None
        follower, loop = self.follower, self._loop
        done: asyncio.Future[None] = loop.create_future()

        def finish(result: T) -> None:
            then(result)
            if not done.done():
                done.set_result(None)

        self._jobs.append(lambda: self._call(finish, job(follower)))
        self._wake()
        await done

    def _wake(self) -> None:
        if self._wake_write >= 0:
            with contextlib.suppress(OSError):
                os.write(self._wake_write, b"x")

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _guarded(self, follower: RunFollower, ready: asyncio.Future[None]) -> None:
        try:
            self._work(follower, ready)
        except Exception as error:
            log.exception("the file source failed")
            failure = SourceFailedError(problem=error)
            for future in (ready, self._failed):
                self._call(lambda f=future: None if f.done() else f.set_exception(failure))
        finally:
            follower.close()

    def _work(self, follower: RunFollower, ready: asyncio.Future[None]) -> None:
        inotify = Inotify()
        pipes: dict[str, int] = {}
        try:
            follower.rescan()
            self._post(follower.read(every=False))
            self._call(lambda: None if ready.done() else ready.set_result(None))
            grown: set[str] = set()
            last_read = 0.0
            next_rescan = next_sweep = 0.0
            while not self._stopping:
                now = time.monotonic()
                if now >= next_rescan:
                    follower.rescan()
                    for folder in follower.folders:
                        inotify.watch(folder)
                    self._open_pipes(follower, pipes)
                    self._report(follower)
                    next_rescan = now + RESCAN_S
                for job in self._take_jobs():
                    job()
                due = 0.0 if self._every else last_read + self._request.update_interval_s
                if now >= next_sweep:
                    self._drain(follower, None)
                    grown.clear()
                    last_read = now
                    next_sweep = now + max(SWEEP_S, self._request.update_interval_s)
                elif grown and now >= due:
                    self._drain(follower, grown)
                    grown.clear()
                    last_read = now
                wait = min(next_rescan, next_sweep, due if grown else next_sweep) - time.monotonic()
                changed, tree_changed = self._wait(inotify, pipes, max(0.0, wait))
                grown |= changed
                if tree_changed:
                    next_rescan = 0.0
                    next_sweep = 0.0
        finally:
            inotify.close()
            for descriptor in pipes.values():
                os.close(descriptor)

    def _wait(self, inotify: Inotify, pipes: dict[str, int], timeout_s: float) -> tuple[set[str], bool]:
        descriptors = [inotify.fileno(), self._wake_read, *pipes.values()]
        readable, _, _ = select.select(descriptors, [], [], timeout_s)
        poked = False
        for descriptor in readable:
            if descriptor != inotify.fileno():
                with contextlib.suppress(BlockingIOError):
                    os.read(descriptor, 65536)
                poked = poked or descriptor != self._wake_read
        if inotify.fileno() not in readable:
            return set(), poked
        grown, tree_changed = inotify.read()
        return grown, tree_changed or poked

    def _drain(self, follower: RunFollower, grown: set[str] | None) -> None:
        every = self._every
        while not self._stopping:
            self._post(follower.read(every, grown))
            if not follower.behind and not follower.full_turn:
                return

    def _post(self, turns: list[Sequence[Frame]]) -> None:
        if turns:
            # Bounded: a loop that falls behind slows our reading down, and the disk is the buffer.
            self._room.get()
            self._call(self._deliver, turns)

    def _deliver(self, turns: list[Sequence[Frame]]) -> None:
        self._room.put(None)
        if self._publish is not None and not self._stopping:
            for frames in turns:
                self._publish(frames)

    def _take_jobs(self) -> list[Callable[[], None]]:
        jobs, self._jobs = self._jobs, []
        return jobs

    def _report(self, follower: RunFollower) -> None:
        for stretch in follower.damaged[:10]:
            log.warning("set aside bytes %d to %d of %s: %s", stretch.offset, stretch.end, stretch.file, stretch.reason)
        self._set_aside += len(follower.damaged)
        follower.damaged.clear()

    def _open_pipes(self, follower: RunFollower, pipes: dict[str, int]) -> None:
        if self._status_pipe is None:
            return
        for folder in follower.folders:
            path = folder / self._status_pipe
            if str(path) not in pipes and path.is_fifo():
                # Read-write, so that a writer that closes does not leave us with an endless end-of-file.
                pipes[str(path)] = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
