"""Locks against other processes: one running instance per station, one who changes a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from fieldstation.core.errors import DeadlineError
from fieldstation.station.errors import AlreadyRunningError
from fieldstation.station.place import current_place


@contextlib.contextmanager
def with_automation_lock() -> Generator[None, None, None]:
    """Hold `run.lock`, with our process id in it; raises a TimeoutError at once when another process holds it.

    The kernel lets go of the lock when the holder dies, whatever it died of; children do not inherit it.
    """
    path = current_place().lock_file
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _taken(descriptor):
            raise AlreadyRunningError(path=path)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    # A few tries: `holder` takes the lock for the blink of an eye when it looks.
    for attempt in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01 * attempt)
        else:
            return True
    return False


def holder() -> int | None:
    """Return the process id of the running instance, or None when nobody holds the lock."""
    path = current_place().lock_file
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 32) or b"0") or None
    finally:
        os.close(descriptor)
    return None


@contextlib.contextmanager
def exclusive(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold an advisory lock on `path` against other processes and threads; DeadlineError when it is not to be had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise DeadlineError(what=f"waiting for the lock {path}", deadline_s=timeout_s) from None
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)
