"""Files over a plain TCP socket, in the framing `NAME newline SIZE newline CONTENT` that lab scripts use.

    sock = connect_socket(host="0.0.0.0", port=5000)     # waits for the other side
    send_file_name(sock, "data.csv")
    send_file(sock, "data.csv")                          # SIZE and CONTENT

    sock = connect_socket(host="localhost", port=5000)   # the other side
    name = receive_file_name(sock)
    receive_file(sock, name)                             # into the current folder

Each function sends or reads its own part only. There is no checksum in this framing: `transfer_session` has one.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import overload

from fieldstation.kit.transfer_files import check_space, replacing, target_in, write_all
from fieldstation.kit.transfer_model import (
    DEFAULT_TIMEOUT_S,
    MAX_IN_MEMORY,
    MAX_SIZE,
    FileChangedError,
    HeaderError,
    PeerClosedError,
    TargetError,
    TransferConnectError,
    check_size,
    parse_name,
    parse_size,
    safe_name,
)
from fieldstation.kit.transfer_socket import CHUNK, Progress, read_into, read_line, send_content, time_limit

CONNECT_TIMEOUT_S = 10.0
_LISTEN_ON = ("", "0.0.0.0", "::")  # noqa: S104 - the documented way to say "be the server"


class _TruncatedSizeError(PeerClosedError, ValueError):
    """The other side closed the connection {when}; nothing was written. Ask it to send the file again."""


@overload
def connect_socket(
    sock: socket.socket, server_ip: str, server_port: int, logger: logging.Logger | None = None
) -> socket.socket | None: ...


@overload
def connect_socket(
    *, host: str, port: int, timeout_s: float | None = None, logger: logging.Logger | None = None
) -> socket.socket: ...


def connect_socket(
    sock: socket.socket | None = None,
    server_ip: str | None = None,
    server_port: int | None = None,
    logger: logging.Logger | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    timeout_s: float | None = None,
) -> socket.socket | None:
    """Connect and return a socket. `connect_socket(host=..., port=...)` makes one; an error is TransferConnectError.

    With host `0.0.0.0`, `::` or "" it is the server: it listens, waits for one peer (without limit unless `timeout_s`
    is named; connecting waits 10 s) and returns that connection. The older shape
    `connect_socket(sock, server_ip, server_port)` connects the caller's socket and returns it, or None when that
    failed. The socket has no time-out afterwards; every function here brings its own.
    """
    if sock is not None:
        try:
            return _connect(sock, str(server_ip or host), int(server_port or port or 0), timeout_s or CONNECT_TIMEOUT_S)
        except TransferConnectError as error:
            (logger or logging.getLogger(__name__)).error("%s", error)
            return None
    host, port = (server_ip if host is None else host), (server_port if port is None else port)
    if host is None or port is None:
        raise TypeError("connect_socket needs host and port")
    if host in _LISTEN_ON:
        return _accept_one(host, port, timeout_s)
    made = _try_addresses(host, port, timeout_s or CONNECT_TIMEOUT_S)
    if logger is not None:
        logger.info("connected to %s:%s", host, port)
    return made


def _connect(sock: socket.socket, host: str, port: int, timeout_s: float | None) -> socket.socket:
    try:
        sock.settimeout(timeout_s)
        sock.connect((host, port))
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except (OSError, OverflowError) as error:
        problem = "no answer in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or error
        raise TransferConnectError(host=host, port=port, problem=problem) from error
    return sock


def _try_addresses(host: str, port: int, timeout_s: float | None) -> socket.socket:
    try:
        made = socket.create_connection((host, port), timeout_s)
    except (OSError, OverflowError) as error:
        problem = "no answer in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or error
        raise TransferConnectError(host=host, port=port, problem=problem) from error
    made.settimeout(None)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made


def _accept_one(host: str, port: int, timeout_s: float | None) -> socket.socket:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if host == "::" else socket.AF_INET) as server:
            server.settimeout(timeout_s)
            sock, _ = server.accept()
    except (OSError, OverflowError) as error:
        problem = (
            "nobody came in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or error
        )
        raise TransferConnectError(host=host or "0.0.0.0", port=port, problem=problem) from error  # noqa: S104 - the documented word for "listen everywhere"
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def send_file_name(sock: socket.socket, name: str | Path, logger: logging.Logger | None = None) -> None:
    """Send the base name of `name` and a newline."""
    base = safe_name(Path(name).name)
    _send(sock, base.encode() + b"\n")
    if logger is not None:
        logger.info("sent the file name %s", base)


def send_file_size(sock: socket.socket, size: int, logger: logging.Logger | None = None) -> None:
    """Send `size` as decimal digits and a newline."""
    _send(sock, b"%d\n" % check_size(size, MAX_SIZE))
    if logger is not None:
        logger.info("sent the file size %d", size)


def _send(sock: socket.socket, data: bytes) -> None:
    with time_limit(sock, DEFAULT_TIMEOUT_S):
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerClosedError(when="before we could send") from error


def receive_file_name(
    sock: socket.socket, logger: logging.Logger | None = None, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> str:
    """Return the name the peer sends, "" when it closed the connection instead.

    A name that could lead out of a folder is refused (UnsafeNameError), so the result may be joined to one.
    """
    line = read_line(sock, timeout_s)
    if line is None:
        return ""
    name = parse_name(line)
    if logger is not None:
        logger.info("received the file name %s", name)
    return name


def receive_file_size(
    sock: socket.socket, logger: logging.Logger | None = None, *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> int:
    """Return the size the peer sends; ValueError (HeaderError) when that is no plain number."""
    line = read_line(sock, timeout_s, limit=64)
    if line is None:
        raise _TruncatedSizeError(when="instead of sending a size")
    size = parse_size(line)
    if logger is not None:
        logger.info("received the file size %d", size)
    return size


def send_file(
    sock: socket.socket,
    path: str | Path,
    logger: logging.Logger | None = None,
    *,
    progress: Progress | bool = False,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> int:
    """Send SIZE and CONTENT of the file at `path` (not its name); returns the size. `progress=True` draws a bar."""
    path = Path(path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise TargetError(f"The file {path} cannot be read: {error.strerror}.") from error
        size = path.stat().st_size
        report = stack.enter_context(drawn(path.name)) if progress is True else progress or None
        send_file_size(sock, size)
        if send_content(sock, file, 0, size, timeout_s=timeout_s, progress=report) != size:
            raise FileChangedError(path=path)
    if logger is not None:
        logger.info("sent %s (%d bytes)", path, size)
    return size


@overload
def receive_file(
    sock: socket.socket, file_size: int, chunk_size: int = ..., logger: logging.Logger | None = ...
) -> bytes: ...


@overload
def receive_file(
    sock: socket.socket,
    file_size: str | Path,
    chunk_size: int = ...,
    logger: logging.Logger | None = ...,
    *,
    folder: str | Path = ...,
    max_size: int | None = ...,
    progress: Progress | bool = ...,
    timeout_s: float | None = ...,
) -> Path: ...


def receive_file(
    sock: socket.socket,
    file_size: int | str | Path,
    chunk_size: int = CHUNK,
    logger: logging.Logger | None = None,
    *,
    folder: str | Path = ".",
    max_size: int | None = None,
    progress: Progress | bool = False,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> bytes | Path:
    """With a size: read that many bytes and return them. With a name: read SIZE and CONTENT into a file.

    A name given as text may come from the peer: it must be a plain file name, and the file goes into `folder`. A Path
    is the caller's own choice and is used as it is. The file appears complete or not at all.
    """
    if isinstance(file_size, int):
        data = bytearray()
        check_size(file_size, MAX_IN_MEMORY if max_size is None else max_size)
        report = None if isinstance(progress, bool) else progress
        read_into(sock, file_size, data.extend, timeout_s=timeout_s, progress=report, chunk=max(1, chunk_size))
        return bytes(data)
    if not file_size or not isinstance(file_size, str | Path):
        raise HeaderError(found="no file name", expected="one (did the peer close the connection?)")
    path = target_in(Path(folder), file_size) if isinstance(file_size, str) else file_size
    size = check_size(receive_file_size(sock, timeout_s=timeout_s), MAX_SIZE if max_size is None else max_size)
    receive_to(sock, path, size, progress=progress, timeout_s=timeout_s)
    if logger is not None:
        logger.info("received %s (%d bytes)", path, size)
    return path


def receive_to(
    sock: socket.socket,
    path: Path,
    size: int,
    *,
    progress: Progress | bool = False,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> None:
    """Read CONTENT of `size` bytes into the file at `path`, which appears when it is complete and on disk."""
    check_space(path.parent, size)
    with ExitStack() as stack:
        report = stack.enter_context(drawn(path.name)) if progress is True else progress or None
        file = stack.enter_context(replacing(path))
        read_into(sock, size, lambda data: write_all(file, data, path), timeout_s=timeout_s, progress=report)


@contextmanager
def drawn(name: str) -> Iterator[Progress]:
    """Yield what draws a progress bar on stderr, ten times a second; without a terminal it draws nothing."""
    last = 0.0

    def draw(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last > 0.1:
            last = now
            filled, percent = 30 * done // max(total, 1), 100 * done // max(total, 1)
            sys.stderr.write(f"\r{name[:30]:<30} [{'#' * filled:<30}] {percent:>3} % {done / 1e6:,.1f} MB")
            sys.stderr.flush()

    try:
        yield draw if sys.stderr.isatty() else lambda done, total: None
    finally:
        if last:
            sys.stderr.write("\n")
