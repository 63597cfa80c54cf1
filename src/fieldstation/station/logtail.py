"""The newest entries of the station's log files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from fieldstation.station.constants import LOGGING_LEVEL_PRIORITIES

# An entry begins with a time; its detail blocks follow on lines of their own.
_HEAD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ UTC\S+ - .*? - (DEBUG|INFO|WARNING|ERROR|EXCEPTION) - ")


def entries(folder: Path, count: int, level: str | None = None) -> list[str]:
    """Return the last `count` entries, the oldest first, from as many days' files as that takes."""
    found: list[str] = []
    for path in sorted(folder.glob("*.log"), reverse=True):
        lines = path.read_text("utf-8", errors="replace").splitlines()
        found = [entry for entry in _grouped(lines) if _counts(entry, level)] + found
        if len(found) >= count:
            break
    return found[-count:]


def follow_entries(folder: Path, level: str | None = None) -> Iterator[str]:
    """Yield new entries as they are written, for ever."""
    path, offset = _newest(folder)
    while True:
        newest, size = _newest(folder)
        if newest != path:
            path, offset = newest, 0
        if path is not None and size > offset:
            with path.open("rb") as file:
                file.seek(offset)
                text = file.read()
            offset += len(text)
            for entry in _grouped(text.decode("utf-8", "replace").splitlines()):
                if _counts(entry, level):
                    yield entry
        time.sleep(0.2)


def _newest(folder: Path) -> tuple[Path | None, int]:
    paths = sorted(folder.glob("*.log"))
    return (paths[-1], paths[-1].stat().st_size) if paths else (None, 0)


def _grouped(lines: Iterable[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        if _HEAD.match(line) or not found:
            found.append(line)
        else:
            found[-1] += "\n" + line
    return found


def _counts(entry: str, level: str | None) -> bool:
    match = _HEAD.match(entry)
    if level is None or match is None:
        return level is None
    order = list(LOGGING_LEVEL_PRIORITIES)
    return order.index(match[1]) >= order.index(level)  # type: ignore[arg-type]  # the pattern lets only levels in
