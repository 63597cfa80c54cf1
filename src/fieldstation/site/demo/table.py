"""The joined table of the demonstration as Parquet: `python -m fieldstation.site.demo.table ARCHIVE FILE`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldstation.core.plugins import require
from fieldstation.site.bridges.reading import rows


def joined(archive: Path) -> list[dict[str, Any]]:
    """Return the table: a row for each pulse count, with the weather and the frame of its moment."""
    return [{"id": identity, "time": time, **values} for identity, _, time, values in rows(archive, "pulses")]


def write(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Write the joined table as Parquet."""
    # Read as JSON: given Python lists, pyarrow imports pandas, fifty megabytes, to ask whether they are its columns.
    reader = require("pyarrow.json", extra="parquet", feature="The joined table")
    parquet = require("pyarrow.parquet", extra="parquet", feature="The joined table")
    lines = "\n".join(map(json.dumps, table)) or "{}"
    parquet.write_table(reader.read_json(io.BytesIO(lines.encode())).slice(0, len(table)), path)


if __name__ == "__main__":
    write(Path(sys.argv[2]), joined(Path(sys.argv[1])))
