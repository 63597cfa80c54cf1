"""Put received bytes into a folder: a hidden part file first, then fsync and one rename, so nobody sees half a file."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fieldstation.core.files import sync
from fieldstation.kit.transfer_model import PART_PREFIX, NoSpaceError, TargetError, safe_relative


def target_in(folder: Path, name: str) -> Path:
    """Return where the file `name` (or `a/b.txt`) from a peer goes inside `folder`; never outside, not by symlinks."""
    parts = safe_relative(name)
    path = folder.joinpath(*parts)
    root = folder.resolve()
    if not path.parent.resolve().is_relative_to(root):
        raise TargetError(path=path, problem="a link in that folder leads outside it")
    if path.is_dir():
        raise TargetError(path=path, problem="there is a folder of that name")
    return path


def check_space(folder: Path, size: int) -> None:
    """Raise NoSpaceError when `size` more bytes cannot fit."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise TargetError(path=folder, problem=error.strerror or error) from error
    if size > free:
        raise NoSpaceError(size=size, folder=folder, free=free)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Write to a part file that becomes `path` when the block ends well, and vanishes when it does not."""
    part = path.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}.part")
    try:
        file = part.open("xb", buffering=0)
    except OSError as error:
        raise TargetError(path=path, problem=error.strerror or error) from error
    try:
        with file:
            yield file
            if durable:
                os.fsync(file.fileno())
        finish(part, path, durable=durable)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def finish(part: Path, path: Path, *, durable: bool = True) -> None:
    """Give the part file its name; after this a power cut cannot take it back."""
    try:
        part.replace(path)
    except OSError as error:
        raise TargetError(path=path, problem=error.strerror or error) from error
    if durable:
        sync(path.parent)


def write_all(file: BinaryIO, data: memoryview, path: Path) -> None:
    """Write all of `data`; a full disk is TargetError."""
    try:
        while len(data):
            data = data[file.write(data) :]
    except OSError as error:
        raise TargetError(path=path, problem=error.strerror or error) from error


def usable_folder(folder: Path) -> Path:
    """Return `folder`, created when missing, or raise TargetError when nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise TargetError(path=folder, problem=error.strerror or error) from error
