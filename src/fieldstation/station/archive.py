"""The archive as files: one CSV per UTC day, `data/messages/YYYY-MM-DD.csv`, header `timestamp,message_body`.

The store is what counts. The files follow it without syncing, for the tools that read them; what they miss after a
power cut is in the store, and what was in them before the store was there is read from them.
"""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path

from fieldstation.core.files import replacing

log = logging.getLogger(__name__)

HEADER = "timestamp,message_body\n"
Row = tuple[float, str]


def day_of(timestamp: float) -> datetime.date:
    """Return the UTC day of a Unix time."""
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).date()


def line_of(timestamp: float, body: str) -> str:
    """Return a row in the documented form."""
    quoted = body.replace('"', '""')
    return f'{timestamp!r},"{quoted}"\n'


def lines_of(timestamp: float, bodies: Iterable[str]) -> str:
    """Return rows of one time whose bodies have no line break in them; in few calls, since the writer does this."""
    start = f'{timestamp!r},"'
    quoted = "\n".join(bodies).replace('"', '""').replace("\n", f'"\n{start}')
    return f'{start}{quoted}"\n'


class DayFiles:
    """Appends to the files of the days. A failure is logged once and mends itself when the day is written anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed = False

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows, each to the file of its day; never raises."""
        by_day: dict[datetime.date, list[str]] = {}
        for timestamp, together in itertools.groupby(rows, key=itemgetter(0)):  # those of one batch have one time
            text = lines_of(timestamp, [body for _, body in together])
            by_day.setdefault(day_of(timestamp), []).append(text)
        try:
            for day, parts in by_day.items():
                self._append(self._folder / f"{day}.csv", "".join(parts))
            self._failed = False
        except (OSError, ValueError) as error:
            if not self._failed:
                log.warning("the archive file could not be written, the store has the messages: %s", error)
            self._failed = True

    def _append(self, path: Path, text: str) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size == 0:
                text = HEADER + text
            os.write(descriptor, text.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)


def read_day_file(path: Path) -> Iterator[Row]:
    """Yield (timestamp, body) of a file; lines that are torn or no messages are left out."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return
    # Line by line: a torn line with an open quote must not swallow the lines behind it.
    for line in text.split("\n"):
        try:
            (cells,) = csv.reader(io.StringIO(line), strict=True)
            timestamp, body = cells
            json.loads(body)
            yield float(timestamp), body
        except (csv.Error, ValueError):
            continue


def merged(stored: Iterable[Row], filed: Iterable[Row]) -> list[Row]:
    """Return all rows that are in the store or in the file, each as often as the one that has it more often has it."""
    rows = list(stored)
    left = Counter(rows)
    missing = []
    for row in filed:
        if left[row] > 0:
            left[row] -= 1
        else:
            missing.append(row)
    return sorted(missing + rows, key=lambda row: row[0]) if missing else rows


def write_day(path: Path, rows: Iterable[Row]) -> int:
    """Write the file of a day anew, in one step; returns the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with replacing(path) as beside, beside.open("w", encoding="utf-8", errors="replace", newline="") as file:
        file.write(HEADER)
        for timestamp, body in rows:
            file.write(line_of(timestamp, body))
            count += 1
    return count
