"""How agents and the writer talk over the Unix socket: four bytes of length (big endian), then JSON."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LENGTH = struct.Struct(">I")
MAX_FRAME = 64_000_000
SOCKET_NAME = "writer.sock"


def pack(entry: Any) -> bytes:
    """Return the frame of a JSON value."""
    payload = json.dumps(entry, separators=(",", ":")).encode()
    return LENGTH.pack(len(payload)) + payload


class Unpacker:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take in `data` and yield the JSON values that are complete; ValueError when the peer talks nonsense."""
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            end = LENGTH.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield json.loads(payload)


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
