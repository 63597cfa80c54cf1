"""A serial line on the event loop: chunked writes that never block it, and text lines as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable

from fieldstation.fleet.errors import FleetError

BOOTLOADER_BAUD = termios.B1200
_BACKLOG = 10_000  # lines nobody reads; older ones are dropped
_LINE_LIMIT = 1 << 20  # a board that never ends its line is garbage, not a reason to fill memory


class PortGoneError(FleetError):
    """The serial port {path} is gone: {problem}."""


def touch(path: str) -> None:
    """Open `path` at 1200 baud and close it again: the sign on which these boards start their boot loader.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        attributes = termios.tcgetattr(descriptor)
        attributes[4] = attributes[5] = BOOTLOADER_BAUD
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
    except termios.error as error:  # which is no OSError, though it carries the same things
        raise OSError(*error.args) from error
    finally:
        os.close(descriptor)


class Port:
    """An open serial line. Lines are text without CR LF; undecodable bytes become U+FFFD.

    With `pause_s` above 0 a write runs in a thread (a loop's timer is far coarser than 10 microseconds); with 0 it
    is done right here, since handing each chunk to a thread costs more than the write.
    """

    def __init__(self, descriptor: int, path: str, *, chunk_bytes: int = 512, pause_s: float = 0.0) -> None:
        self.path = path
        self._fd = descriptor
        self._chunk = chunk_bytes
        self._pause = pause_s
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=_BACKLOG)
        self.on_gone: Callable[[], None] | None = None  # called once, when the board is found to be gone
        self._gone: str | None = None
        self._reader: asyncio.Future[None] | None = None
        self._closing = threading.Lock()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    @classmethod
    def open(cls, path: str, *, chunk_bytes: int = 512, pause_s: float = 0.0) -> Port:
        """Open the terminal `path` raw, at 115200 baud (USB boards ignore the figure); raises OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(descriptor, termios.TCSANOW)
            attributes = termios.tcgetattr(descriptor)
            attributes[4] = attributes[5] = termios.B115200
            termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
        except termios.error as error:
            os.close(descriptor)
            raise OSError(*error.args) from error
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, path, chunk_bytes=chunk_bytes, pause_s=pause_s)

    async def write(self, data: bytes) -> None:
        """Write all of `data` in chunks; returns when the kernel has taken the last one."""
        if self._gone is not None:
            raise PortGoneError(path=self.path, problem=self._gone)
        if self._pause > 0:
            # Cancellation cannot reach a thread; closing the port ends its write with EBADF.
            await asyncio.to_thread(self._write_paced, data)
            return
        view, at = memoryview(data), 0
        while (at := self._write_some(view, at)) < len(view):
            await self._writable()

    def _write_some(self, view: memoryview, at: int) -> int:
        chunk, descriptor, write = self._chunk, self._fd, os.write
        end = len(view)
        try:
            while at < end:
                at += write(descriptor, view[at : at + chunk])
        except BlockingIOError:
            pass
        except OSError as error:
            self._lost(error)
            raise PortGoneError(path=self.path, problem=self._gone) from error
        return at

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(self._fd, _resolve, ready)
        try:
            await ready
        finally:
            if self._fd >= 0:
                self._loop.remove_writer(self._fd)

    def _write_paced(self, data: bytes) -> None:
        view, at = memoryview(data), 0
        while at < len(view):
            try:
                # Under the lock, so that the number cannot be closed and given to another file in between.
                with self._closing:
                    at += os.write(self._fd, view[at : at + self._chunk])
            except BlockingIOError:
                time.sleep(0.001)
                continue
            except OSError as error:
                raise PortGoneError(path=self.path, problem=error) from error
            time.sleep(self._pause)

    async def line(self) -> str:
        """Return the next line; raises PortGoneError once the board is gone and all lines are read."""
        while not self._lines:
            if self._gone is not None:
                raise PortGoneError(path=self.path, problem=self._gone)
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._lines.popleft()

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if not data:
            self._lost(OSError(errno.EIO, os.strerror(errno.EIO)))
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_LIMIT:
            self._rest = b""
        if lines:
            self._lines.extend(line.rstrip(b"\r").decode(errors="replace") for line in lines)
            self._wake()

    def _lost(self, error: OSError) -> None:
        if self._gone is None:
            self._gone = error.strerror or str(error)
            self._loop.remove_reader(self._fd)
            self._wake()
            if self.on_gone is not None:
                self.on_gone()

    def drain(self) -> None:
        """Forget the lines that have arrived; raises PortGoneError when the board is gone."""
        self._lines.clear()
        if self._gone is not None:
            raise PortGoneError(path=self.path, problem=self._gone)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def close(self) -> None:
        """Let go of the line; may be called repeatedly."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            with self._closing, contextlib.suppress(OSError):
                descriptor, self._fd = self._fd, -1
                os.close(descriptor)
            self._gone = self._gone or "closed"
            self._wake()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
