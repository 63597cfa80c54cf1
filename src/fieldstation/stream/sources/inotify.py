"""The kernel's notice that a file grew, through libc: the standard library has no binding for inotify(7)."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import struct
from pathlib import Path

IN_MODIFY = 0x00000002
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_Q_OVERFLOW = 0x00004000
_IN_NONBLOCK = 0o4000
_IN_CLOEXEC = 0o2000000
_HEADER = struct.Struct("iIII")


class Inotify:
    """Watches folders; `fileno()` becomes readable when something in one of them changed."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        self._descriptor = self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._folders: dict[int, Path] = {}

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return int(self._descriptor)

    def watch(self, folder: Path) -> bool:
        """Watch a folder; again is harmless. False when the kernel refuses (no watches left, or folder gone)."""
        mask = IN_MODIFY | IN_CREATE | IN_MOVED_TO
        number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)
        if number < 0:
            if ctypes.get_errno() in (errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EACCES):
                return False
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
        self._folders[number] = folder
        return True

    def read(self) -> tuple[set[str], bool]:
        """Return the files that grew, and whether the tree changed (a new name, or the kernel lost count)."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return set(), False
        grown: set[str] = set()
        tree_changed = False
        at = 0
        while at < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, at)
            name = data[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0")
            at += _HEADER.size + length
            if mask & (IN_Q_OVERFLOW | IN_CREATE | IN_MOVED_TO):
                tree_changed = True
            if mask & IN_MODIFY and number in self._folders:
                grown.add(f"{self._folders[number]}/{os.fsdecode(name)}")
        return grown, tree_changed

    def close(self) -> None:
        """Close the descriptor and with it all watches."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
