"""How agents and the writer talk over the Unix socket: four bytes of length (big endian), then a line of JSON.

Bodies of messages follow as lines of their own: they are JSON already, and to quote them once more costs more than to
store them.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LENGTH = struct.Struct(">I")
_TIMEVAL = struct.Struct("ll")
READ_AT_ONCE = 1 << 16  # more would be a mapping of memory for each read
MAX_FRAME = 64_000_000
SOCKET_NAME = "writer.sock"


# Made once: `json.dumps` and `json.loads` would look for theirs each time.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


def pack(entry: Any, lines: Sequence[bytes] = ()) -> bytes:
    """Return the frame of a list, and of lines (UTF-8) that go with it; ValueError when a line is more than one."""
    return pack_text(_encode(entry), lines)


def pack_text(head: str, lines: Sequence[bytes] = ()) -> bytes:
    """Return the frame of a list that is JSON already."""
    payload = b"\n".join((head.encode(), *lines))
    if payload.count(b"\n") != len(lines):
        raise ValueError("a line of a frame may not be broken")
    return LENGTH.pack(len(payload)) + payload


STORED = pack(["ok", None])  # nearly every answer


class Unpacker:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._left = bytearray()  # of a frame that has not come whole

    def feed(self, data: bytes | bytearray) -> list[Any]:
        """Take in `data` and return the lists that are complete; ValueError when the peer talks nonsense.

        Lines that came with a list are its last element.
        """
        found: list[Any] = []
        if self._left:
            self._left += data
            data = self._left
        start = 0
        while len(data) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, start)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            end = start + LENGTH.size + length
            if len(data) < end:
                break
            found.append(_entry(data[start + LENGTH.size : end].decode()))
            start = end
        if start or data is not self._left:
            self._left = bytearray(data[start:])
        return found


def _entry(text: str) -> Any:
    entry, end = _decode(text)
    if not (isinstance(entry, list) and entry):
        raise ValueError("a frame that is no list")
    if end < len(text):
        empty, *lines = text[end:].split("\n")
        if empty:
            raise ValueError("a frame that goes on behind its list")
        entry.append(lines)
    return entry


def wait_at_most(line: socket.socket, seconds: float) -> None:
    """Let each wait on `line` end after `seconds` with an OSError.

    By the kernel: Python's own time-outs cost a system call more for each call.
    """
    line.setblocking(True)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        line.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6)))


def connect(folder: Path, timeout_s: float) -> socket.socket:
    """Connect to the writer of the data folder `folder`."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(timeout_s)
        with short_path(folder) as path:
            line.connect(path)
    except BaseException:
        line.close()
        raise
    return line


class short_path:  # noqa: N801 - reads as a verb phrase in `with short_path(folder) as path`
    """The writer's socket under a name that fits: a Unix socket's path may have 107 bytes, a data folder's more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> str:
        plain = str(self._folder / SOCKET_NAME)
        if len(os.fsencode(plain)) < 100:
            return plain
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._descriptor}/{SOCKET_NAME}"

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
