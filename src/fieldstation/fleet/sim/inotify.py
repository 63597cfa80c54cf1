"""Kernel notices about files: a board learns that its terminal was opened or closed, and that a file was copied."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

IN_CLOSE_WRITE = 0x08
IN_CLOSE_NOWRITE = 0x10
IN_OPEN = 0x20
IN_CLOSE = IN_CLOSE_WRITE | IN_CLOSE_NOWRITE
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something happened to the watched `watch`; `name` is the file in a watched directory."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One inotify instance; `fd` becomes readable when there are notices."""

    def __init__(self) -> None:
        self.fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def watch(self, path: str, mask: int) -> int:
        """Ask for notices about `path`; returns the number by which they name it."""
        return _check(_libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask)))

    def forget(self, watch: int) -> None:
        """Ask for no more; harmless when the file is gone already."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Notice]:
        """Yield what has happened."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            yield Notice(watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0")))
            at += length


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
