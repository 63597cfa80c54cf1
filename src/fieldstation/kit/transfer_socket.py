"""Read lines and bytes from a socket without reading one byte too many, and with limits on time and length."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from fieldstation.kit.transfer_model import (
    MAX_HEADER_BYTES,
    HeaderError,
    PeerClosedError,
    TransferTimeoutError,
)

Progress = Callable[[int, int], None]

CHUNK = 1 << 20


@contextlib.contextmanager
def time_limit(sock: socket.socket, timeout_s: float | None) -> Iterator[None]:
    """Give a socket that would wait for ever a time-out for the block; its own setting comes back after it."""
    before = sock.gettimeout()
    sock.settimeout(timeout_s if before is None else before)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sock.settimeout(before)


def read_line(sock: socket.socket, timeout_s: float | None, *, limit: int = MAX_HEADER_BYTES) -> bytes | None:
    """Return the next line without its newline, None when the peer closed before its first byte.

    The byte after the newline is still in the socket afterwards: callers mix this with reads of their own.
    """
    line = bytearray()
    deadline = Deadline(sock, timeout_s, "while it sent a header line")
    while True:
        deadline.arm()
        with deadline.named():
            chunk = _peek_to_newline(sock, limit + 1 - len(line))
        if not chunk:
            if line:
                raise PeerClosedError(when="in the middle of a header line")
            return None
        line += chunk
        if line.endswith(b"\n"):
            return bytes(line[:-1])
        if len(line) > limit:
            raise HeaderError(found=f"a header line of more than {limit} bytes", expected="a short one")


def _peek_to_newline(sock: socket.socket, length: int) -> bytes:
    if isinstance(sock, ssl.SSLSocket):
        return sock.recv(1)  # TLS cannot peek; it reads from a decrypted buffer, so single bytes are cheap enough
    seen = sock.recv(min(length, 4096), socket.MSG_PEEK)
    end = seen.find(b"\n")
    return sock.recv(end + 1 if end >= 0 else len(seen)) if seen else b""


class Deadline:
    """The time a peer has for one thing in all, applied to each read of it."""

    def __init__(self, sock: socket.socket, timeout_s: float | None, when: str) -> None:
        self._sock = sock
        self._timeout_s = timeout_s if sock.gettimeout() is None else sock.gettimeout()
        self._end = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        self._when = when
        self._before = sock.gettimeout()

    def arm(self) -> None:
        """Let the next read wait no longer than what is left."""
        if self._end is not None:
            left = self._end - time.monotonic()
            if left <= 0:
                raise self.error()
            self._sock.settimeout(left)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Turn the socket's time-out into our sentence, and give the socket its own setting back."""
        try:
            yield
        except TimeoutError as error:
            raise self.error() from error
        except (ConnectionResetError, BrokenPipeError) as error:
            raise PeerClosedError(when=self._when) from error
        finally:
            with contextlib.suppress(OSError):
                self._sock.settimeout(self._before)

    def error(self) -> TransferTimeoutError:
        """What a peer that is too slow is told off with."""
        return TransferTimeoutError(timeout_s=f"{self._timeout_s:g}", when=self._when)


def read_into(
    sock: socket.socket,
    size: int,
    take: Callable[[memoryview], object],
    *,
    timeout_s: float | None,
    min_bytes: int = 1024,
    progress: Progress | None = None,
    chunk: int = CHUNK,
) -> None:
    """Read exactly `size` bytes and hand them to `take` in pieces of a fixed buffer (flat memory)."""
    buffer = memoryview(bytearray(max(1, min(size, chunk))))
    done = window = 0
    with time_limit(sock, timeout_s):
        timeout_s = sock.gettimeout()
        window_start = time.monotonic()
        while done < size:
            try:
                count = sock.recv_into(buffer[: min(size - done, len(buffer))])
            except TimeoutError as error:
                raise TransferTimeoutError(timeout_s=f"{timeout_s:g}", when="in the middle of a file") from error
            except ConnectionResetError as error:
                raise PeerClosedError(when=f"after {done} of {size} bytes") from error
            if not count:
                raise PeerClosedError(when=f"after {done} of {size} bytes")
            take(buffer[:count])
            done += count
            if progress is not None:
                progress(done, size)
            if timeout_s is not None and (now := time.monotonic()) - window_start > timeout_s:
                # A peer that drips a byte now and then would hold its place for ever.
                if done - window < min_bytes:
                    raise TransferTimeoutError(timeout_s=f"{timeout_s:g}", when="in the middle of a file")
                window, window_start = done, now


def finish_sending(sock: socket.socket, timeout_s: float = 10.0) -> None:
    """Tell the peer that nothing more comes, and wait until it has read it all and closed (or `timeout_s`).

    Closing at once while bytes of the peer are unread (TLS session tickets are such) would throw away ours on the way.
    """
    with contextlib.suppress(OSError), time_limit(sock, timeout_s):
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def send_content(
    sock: socket.socket,
    file: BinaryIO,
    offset: int,
    size: int,
    *,
    timeout_s: float | None,
    progress: Progress | None = None,
) -> int:
    """Send bytes `offset` to `size` of `file` (by `sendfile` where the system has it); returns where it ended."""
    sent = offset
    with time_limit(sock, timeout_s):
        while sent < size:
            try:
                count = sock.sendfile(file, sent, min(8 * CHUNK, size - sent))
            except TimeoutError as error:
                raise TransferTimeoutError(timeout_s=f"{sock.gettimeout():g}", when="while we sent") from error
            except (BrokenPipeError, ConnectionResetError) as error:
                raise PeerClosedError(when=f"after we had sent {sent} of {size} bytes") from error
            if not count:
                break
            sent += count
            if progress is not None:
                progress(sent, size)
    return sent
