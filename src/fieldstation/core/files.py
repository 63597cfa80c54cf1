"""Files: where a user's state is kept, and how one is replaced so that it is the old or the new one after a crash."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def state_folder() -> Path:
    """Return where the state of this user's programs is kept by default: `$XDG_STATE_HOME/fieldstation`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "fieldstation"


def sync(path: Path) -> None:
    """Make what a file holds, or a rename in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, mode: int | None = None, *, durable: bool = True) -> Iterator[Path]:
    """Yield an empty file beside `path`, which becomes `path` when the block ends well and vanishes when it does not.

    `mode`: exactly these permissions, before anything is in it; None: what the process gives new files. Not
    `durable`: a power cut may bring the old file back, or an empty one.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.close(descriptor)
        yield beside
        if durable:
            sync(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_file(path: Path, content: str | bytes, mode: int | None = None, *, durable: bool = True) -> None:
    """Replace `path` by `content` in one step; after a failure the old file stands unchanged. See `replacing`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, mode, durable=durable) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
