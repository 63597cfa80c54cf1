"""The receiving side of one connection: the older framing, or a session of ours when the first line says so."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fieldstation.kit.transfer import receive_file_size, receive_to
from fieldstation.kit.transfer_files import check_space, finish, target_in, write_all
from fieldstation.kit.transfer_model import (
    MAX_SIZE,
    PART_PREFIX,
    ChecksumError,
    HeaderError,
    Limits,
    TargetError,
    TransferError,
    TransferRefusedError,
    check_size,
    parse_name,
)
from fieldstation.kit.transfer_session import HELLO, hash_of, new_nonce, proof, read_json, send_json
from fieldstation.kit.transfer_socket import read_into, read_line

OnFile = Callable[[Path, int], None]


def receive_files(
    sock: socket.socket,
    folder: Path,
    limits: Limits,
    on_file: OnFile,
    *,
    token: str | None = None,
    legacy: bool = True,
    sessions: bool = True,
) -> int:
    """Receive into `folder` until the peer closes; returns the number of files. Which mode it is the peer decides.

    `legacy=False` refuses the older framing, `sessions=False` ours. With a token only sessions are accepted.
    """
    line = read_line(sock, limits.timeout_s)
    if line == HELLO and sessions:
        return _session(sock, folder, limits, on_file, token)
    if not legacy or token is not None:
        raise HeaderError(found="a file in the older framing", expected="a session with checksum (and token)")
    count = 0
    while line is not None:
        path = target_in(folder, parse_name(line))
        size = check_size(receive_file_size(sock, timeout_s=limits.timeout_s), limits.max_size)
        receive_to(sock, path, size, timeout_s=limits.timeout_s)
        on_file(path, size)
        count += 1
        line = read_line(sock, limits.timeout_s)
    return count


def _session(sock: socket.socket, folder: Path, limits: Limits, on_file: OnFile, token: str | None) -> int:
    nonce = new_nonce() if token is not None else None
    send_json(sock, limits.timeout_s, nonce=nonce)
    if token is not None and nonce is not None:
        given = str(read_json(sock, limits.timeout_s).get("proof", ""))
        if not hmac.compare_digest(given.encode(), proof(token, nonce).encode()):
            send_json(sock, limits.timeout_s, error="The token is wrong.")
            raise TransferRefusedError("A peer without the right token was refused.")
        send_json(sock, limits.timeout_s, ok=True)
    count = 0
    while not (header := read_json(sock, limits.timeout_s)).get("end"):
        try:
            path, size, mtime = _header(folder, header, limits)
            if header.get("sync") and _same(path, size, mtime):
                send_json(sock, limits.timeout_s, have=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            part = part_of(path, size, mtime)
            check_space(path.parent, size)
        except (TransferError, OSError) as error:
            # Nothing of the file has been sent yet, so the session can go on with the next one.
            send_json(sock, limits.timeout_s, error=str(error))
            continue
        try:
            _receive_part(sock, part, path, size, mtime, limits)
        except (ChecksumError, TargetError) as error:
            send_json(sock, limits.timeout_s, error=str(error))
            if isinstance(error, TargetError):
                raise
            continue
        on_file(path, size)
        count += 1
        send_json(sock, limits.timeout_s, ok=True)
    return count


def _header(folder: Path, header: dict[str, Any], limits: Limits) -> tuple[Path, int, int]:
    name, size, mtime = header.get("file"), header.get("size"), header.get("mtime")
    if not isinstance(name, str) or type(size) is not int or type(mtime) is not int:
        raise HeaderError(found=ascii(str(header)[:40]), expected="file, size and mtime")
    if not 0 <= mtime <= MAX_SIZE:
        raise HeaderError(found=mtime, expected="a time in nanoseconds since 1970")
    return target_in(folder, name), check_size(size, limits.max_size), mtime


def _same(path: Path, size: int, mtime: int) -> bool:
    with contextlib.suppress(OSError):
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) == (size, mtime)
    return False


def part_of(path: Path, size: int, mtime: int) -> Path:
    """Return the part file of this very file: the same name, size and time find it again after a cut line."""
    key = hashlib.sha256(f"{path.name}\0{size}\0{mtime}".encode()).hexdigest()[:16]
    return path.with_name(f"{PART_PREFIX}{key}.resume")


@contextlib.contextmanager
def _locked(part: Path, path: Path) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise TargetError(path=path, problem=error.strerror or error) from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TargetError(path=path, problem="another connection is sending this file just now") from error
        yield file


def _receive_part(sock: socket.socket, part: Path, path: Path, size: int, mtime: int, limits: Limits) -> None:
    with _locked(part, path) as file:
        have = min(os.fstat(file.fileno()).st_size, size)
        send_json(sock, limits.timeout_s, offset=have, prefix=hash_of(part, have).hexdigest())
        start = read_json(sock, limits.timeout_s).get("from")
        if start not in (0, have):
            raise HeaderError(found=ascii(str(start))[:40], expected=f"0 or {have}")
        file.truncate(start)
        file.seek(start)
        digest = hash_of(part, start)

        def take(data: memoryview) -> None:
            digest.update(data)
            write_all(file, data, path)

        read_into(sock, size - start, take, timeout_s=limits.timeout_s, min_bytes=limits.min_bytes)
        if read_json(sock, limits.timeout_s).get("sha256") != digest.hexdigest():
            part.unlink()
            raise ChecksumError(name=path.name)
        os.fsync(file.fileno())
        os.utime(file.fileno(), ns=(mtime, mtime))
        finish(part, path)
