"""Days of the archive as files for other programs."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path

from fieldstation.core.errors import FieldstationError
from fieldstation.core.files import replacing
from fieldstation.core.plugins import require
from fieldstation.station.agent import WriterLine, archive_rows
from fieldstation.station.archive import write_day
from fieldstation.station.store import Reader


def export(data_dir: Path, folder: Path | None, day: str | None, form: str) -> Iterator[tuple[Path, int]]:
    """Write a file per UTC day and yield (path, number of messages)."""
    target = folder or data_dir / "messages"
    for date in _days(data_dir, day):
        rows = archive_rows(data_dir, date)
        if form == "csv":
            path = target / f"{date}.csv"
            yield path, write_day(path, rows)
        else:
            path = target / f"{date}.parquet"
            target.mkdir(parents=True, exist_ok=True)
            _write_parquet(path, rows)
            yield path, len(rows)


def _days(data_dir: Path, day: str | None) -> list[datetime.date]:
    if day is not None:
        try:
            return [datetime.date.fromisoformat(day)]
        except ValueError as error:
            raise FieldstationError(f"--day: {day!r} is no date; the form is 2026-01-31.") from error
    with contextlib.closing(WriterLine(data_dir)) as line:
        line.ask(("ping",))
    reader = Reader(data_dir / "active-message-queue.sqlite3")
    with contextlib.closing(reader):
        found = set(reader.days())
    for path in (data_dir / "messages").glob("*.csv"):
        with contextlib.suppress(ValueError):
            found.add(datetime.date.fromisoformat(path.stem))
    return sorted(found)


def _write_parquet(path: Path, rows: list[tuple[float, str]]) -> None:
    pyarrow = require("pyarrow", extra="parquet", feature="Export to Parquet")
    parquet = require("pyarrow.parquet", extra="parquet", feature="Export to Parquet")
    table = pyarrow.table(
        {
            "timestamp": pyarrow.array([timestamp for timestamp, _ in rows], pyarrow.float64()),
            "message_body": pyarrow.array([body for _, body in rows], pyarrow.string()),
        }
    )
    with replacing(path) as beside:
        parquet.write_table(table, beside)
