"""Read an archive that `node:archive` keeps. Needs nothing but the standard library, so a report stays small."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fieldstation.core.store import connect


def rows(path: Path, source: str | None = None) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """Yield (id, source, timestamp, values) in the order of their time."""
    with contextlib.closing(connect(path, read_only=True)) as connection:
        for identity, kind, timestamp, body in connection.execute(
            "SELECT id, source, timestamp, body FROM message WHERE ? IS NULL OR source = ? ORDER BY timestamp, seq",
            (source, source),
        ):
            yield identity, kind, timestamp, json.loads(body)["data"]
