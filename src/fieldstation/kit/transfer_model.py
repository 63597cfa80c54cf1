"""What may travel over the file transfer: names, sizes, limits, errors. Pure rules, no socket and no file."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from fieldstation.core.errors import FieldstationError

MAX_HEADER_BYTES = 4096
MAX_NAME_BYTES = 255  # what file systems take
MAX_SIZE = 10**19 - 1  # nineteen digits
MAX_IN_MEMORY = 1 << 30
PART_PREFIX = ".fieldstation-"  # our unfinished files; hidden names are refused, so no peer can name one
DEFAULT_TIMEOUT_S = 60.0

_SIZE = re.compile(rb"[0-9]{1,19}")
_DRIVE = re.compile(r"[A-Za-z]:")
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class TransferError(FieldstationError):
    """The file transfer failed: {problem}."""


class TransferConnectError(TransferError, ConnectionError):
    """No connection to {host}:{port} for a file transfer: {problem}."""


class PeerClosedError(TransferError, ConnectionError):
    """The other side closed the connection {when}; nothing was written. Ask it to send the file again."""


class TransferTimeoutError(TransferError, TimeoutError):
    """The other side sent too little for {timeout_s} s {when}; the transfer was given up, nothing was written."""


class UnsafeNameError(TransferError, ValueError):
    """The file name {name} is refused: {problem}."""


class HeaderError(TransferError, ValueError):
    """The other side sent {found} instead of {expected}."""


class SizeLimitError(TransferError, ValueError):
    """The file has {size} bytes and the limit is {limit}; nothing was written."""


class NoSpaceError(TransferError, OSError):
    """The file needs {size} bytes and {folder} has {free} free; nothing was written."""


class FileChangedError(TransferError):
    """The file {path} changed while it was sent; the other side has to drop what it got."""


class TargetError(TransferError, OSError):
    """The file cannot be written to {path}: {problem}."""


class TransferRefusedError(TransferError):
    """The other side refused {what}: {problem}"""


class ChecksumError(TransferError):
    """The file {name} arrived damaged (its checksum differs) and was dropped. Send it again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver accepts. `min_bytes` in each `timeout_s` is the least a peer must send, or it is dropped."""

    timeout_s: float | None = DEFAULT_TIMEOUT_S
    max_size: int = MAX_SIZE
    min_bytes: int = 1024


def safe_name(name: str) -> str:
    """Return `name` when it is a plain file name that stays inside its folder on any system, else UnsafeNameError."""
    problem = None
    if not name:
        problem = "it is empty"
    elif len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        problem = f"it is longer than {MAX_NAME_BYTES} bytes"
    elif "/" in name or "\\" in name or _DRIVE.match(name):
        problem = "it is a path; only a plain file name is accepted"
    elif name.startswith("."):
        problem = "hidden names and the folders . and .. are not accepted"
    elif any(unicodedata.category(c) in ("Cc", "Cs") or c in _BIDI for c in name):
        problem = "it holds control characters"
    elif name != name.strip() or name.endswith("."):
        problem = "it begins or ends with a blank, or ends with a dot"
    if problem is not None:
        raise UnsafeNameError(name=ascii(name[:80]), problem=problem)
    return name


def safe_relative(path: str) -> tuple[str, ...]:
    """Return the parts of a relative path (`a/b.txt`), each a safe name; at most 32 levels."""
    parts = tuple(path.split("/"))
    if len(parts) > 32:
        raise UnsafeNameError(name=ascii(path[:80]), problem="it has more than 32 levels")
    return tuple(safe_name(part) for part in parts)


def parse_name(line: bytes) -> str:
    """Return the safe file name in a header line."""
    try:
        return safe_name(line.decode())
    except UnicodeDecodeError as error:
        raise UnsafeNameError(name=ascii(line[:80]), problem="it is not UTF-8") from error


def parse_size(line: bytes) -> int:
    """Return the size in a header line; only plain ASCII digits count (`-5`, `1_000`, ` 12` do not)."""
    if not _SIZE.fullmatch(line):
        raise HeaderError(found=ascii(line[:40].decode("latin-1")), expected="a size in decimal digits")
    return int(line)


def check_size(size: int, limit: int) -> int:
    """Return `size` when it is within the limit, else SizeLimitError."""
    if size < 0:
        raise HeaderError(found=size, expected="a size that is not negative")
    if size > limit:
        raise SizeLimitError(size=size, limit=limit)
    return size
