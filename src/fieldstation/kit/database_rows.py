"""Query results: plain rows, and on request pandas or polars frames, CSV or Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldstation.core.files import replacing
from fieldstation.core.plugins import require

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]  # its stubs are a package of their own
    import polars


_ROW_GROUP = 50_000


class Rows(list[dict[str, Any]]):
    """A list of dictionaries that remembers its columns, so that an empty result still has them."""

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.columns = list(columns)
        super().__init__(dict(zip(self.columns, row, strict=True)) for row in rows)

    def pandas(self) -> pandas.DataFrame:
        """Return a pandas frame; times are UTC timestamps."""
        frames: Any = require("pandas", extra="frames", feature="Rows.pandas()")
        return frames.DataFrame(list(self), columns=self.columns)

    def polars(self) -> polars.DataFrame:
        """Return a polars frame; times are UTC datetimes."""
        frames: Any = require("polars", extra="frames", feature="Rows.polars()")
        columns = {name: [row[name] for row in self] for name in self.columns}
        frame: polars.DataFrame = frames.DataFrame(columns, strict=False, infer_schema_length=None)
        return frame


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a CSV file with a head line, times as ISO 8601; returns the number of rows. Complete or not at all."""
    count = 0
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_text(value) for value in row])
            count += 1
    return count


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value


def write_parquet(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a Parquet file in row groups, so that memory stays flat; returns the number of rows."""
    pyarrow: Any = require("pyarrow", extra="frames", feature="The Parquet export")
    parquet: Any = require("pyarrow.parquet", extra="frames", feature="The Parquet export")
    count = 0
    writer: Any = None
    remaining = iter(rows)
    with replacing(path) as part:
        while batch := list(islice(remaining, _ROW_GROUP)):
            data = {name: [row[index] for row in batch] for index, name in enumerate(columns)}
            table = pyarrow.table(data, schema=writer.schema if writer is not None else None)
            if writer is None:
                writer = parquet.ParquetWriter(part, table.schema)
            writer.write_table(table)
            count += len(batch)
        if writer is None:
            parquet.write_table(pyarrow.table({name: [] for name in columns}), part)
        else:
            writer.close()
    return count
