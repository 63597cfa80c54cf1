"""How agents and the writer talk over the Unix socket: four bytes of length (big endian), then a line of JSON.

Bodies of messages follow as lines of their own: they are JSON already, and to quote them once more costs more than to
store them.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LENGTH = struct.Struct(">I")
_TIMEVAL = struct.Struct("ll")
READ_AT_ONCE = 1 << 16  # more would be a mapping of memory for each read
MAX_FRAME = 64_000_000
SOCKET_NAME = "writer.sock"


_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: `json.dumps` would make one each time


def pack(entry: Any, lines: Sequence[str] = ()) -> bytes:
    """Return the frame of a list, and of lines that go with it; ValueError when a line is more than one."""
    text = "\n".join((_encode(entry), *lines))
    if text.count("\n") != len(lines):
        raise ValueError("a line of a frame may not be broken")
    payload = text.encode()
    return LENGTH.pack(len(payload)) + payload


class Unpacker:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take in `data` and yield the lists that are complete; ValueError when the peer talks nonsense.

        Lines that came with a list are its last element.
        """
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            end = LENGTH.size + length
            if len(self._buffer) < end:
                return
            head, *lines = self._buffer[LENGTH.size : end].decode().split("\n")
            del self._buffer[:end]
            entry = json.loads(head)
            if not (isinstance(entry, list) and entry):
                raise ValueError("a frame that is no list")
            if lines:
                entry.append(lines)
            yield entry


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
