"""What is done once an hour: day files written whole, retention, old log files removed."""

from __future__ import annotations

import contextlib
import datetime
import logging
import sqlite3
import time
from pathlib import Path

from fieldstation.core.errors import StoreError
from fieldstation.station.agent import WriterLine
from fieldstation.station.archive import day_of, merged, read_day_file, write_day
from fieldstation.station.config import RetentionConfig
from fieldstation.station.store import Reader

log = logging.getLogger(__name__)

_AT_ONCE = 500


def keep_house(data_dir: Path, retention: RetentionConfig) -> None:
    """Do all of it; what fails is logged and tried again next time."""
    for work in (_finish_yesterday, _retain, _remove_logs):
        try:
            work(data_dir, retention)
        except (OSError, sqlite3.Error, StoreError) as error:
            log.warning("house-keeping: %s", error)


def _finish_yesterday(data_dir: Path, _: RetentionConfig) -> None:
    export_day(data_dir, day_of(time.time() - 86400))


def export_day(data_dir: Path, day: datetime.date, folder: Path | None = None) -> int:
    """Write the file of a UTC day whole, if it lacks anything; returns how many messages the day has."""
    path = data_dir / "messages" / f"{day}.csv"
    reader = Reader(data_dir / "active-message-queue.sqlite3")
    with contextlib.closing(reader):
        filed = list(read_day_file(path))
        rows = merged(reader.on_day(day), filed)
    if rows and (folder is not None or len(rows) != len(filed)):
        write_day((folder or path.parent) / path.name, rows)
    return len(rows)


def _retain(data_dir: Path, retention: RetentionConfig) -> None:
    line = WriterLine(data_dir)
    with contextlib.closing(line):
        if retention.max_age_days is not None:
            before = time.time() - retention.max_age_days * 86400
            # In small transactions: measuring does not wait for house-keeping.
            while line.ask(("retain", before, _AT_ONCE)) == _AT_ONCE:
                time.sleep(0.01)
            for path in _days_only_in_files(data_dir):
                if datetime.date.fromisoformat(path.stem) < day_of(before):
                    path.unlink(missing_ok=True)
        while retention.max_size_mb is not None and archive_mb(data_dir) > retention.max_size_mb:
            oldest = next(iter(_days_only_in_files(data_dir)), None)
            if oldest is not None:
                oldest.unlink(missing_ok=True)
            elif line.ask(("retain", None, _AT_ONCE)) == 0:
                break


def _days_only_in_files(data_dir: Path) -> list[Path]:
    """Return the files of the days before the first that the store has anything of, the oldest first."""
    reader = Reader(data_dir / "active-message-queue.sqlite3")
    with contextlib.closing(reader):
        stored = reader.days()
    if not stored:
        return []
    first = f"{stored[0]}.csv"
    return sorted(path for path in (data_dir / "messages").glob("????-??-??.csv") if path.name < first)


def archive_mb(data_dir: Path) -> float:
    """Return the size of what is in the store and of the files of the days."""
    files = (path.stat().st_size for path in (data_dir / "messages").glob("*.csv"))
    return used_mb(data_dir / "active-message-queue.sqlite3") + sum(files) / 1e6


def used_mb(file: Path) -> float:
    """Return the size of what is in the store, without the room that dropped messages left in it."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return float((pages - free) * size / 1e6)


def _remove_logs(data_dir: Path, retention: RetentionConfig) -> None:
    oldest = day_of(time.time()) - datetime.timedelta(days=retention.log_days)
    for path in (data_dir / "logs").glob("*.log"):
        with contextlib.suppress(ValueError):
            if datetime.date.fromisoformat(path.stem) < oldest:
                path.unlink(missing_ok=True)
