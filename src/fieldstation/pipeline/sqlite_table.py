"""Predictions in a SQLite file; the index does what Redis' search does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from fieldstation.core import store
from fieldstation.pipeline.predictions import Document

_TAGS = ("product", "version", "workflow", "workflow_type", "process", "request_id")


class SqliteTable:
    """See predictions.Table. One connection, one lock: several threads of a node use it; other processes wait."""

    def __init__(self, path: Path) -> None:
        self._connection = store.connect(path)
        store.migrate(self._connection, store.numbered(resources.files("fieldstation.pipeline") / "sql"), path)
        self._lock = threading.Lock()

    def put(self, key: str, document: Document) -> None:
        """Store or replace."""
        with self._lock:
            self._put(key, document)

    def get(self, key: str) -> Document | None:
        """Return the document, or None."""
        with self._lock:
            row = self._connection.execute("SELECT document FROM prediction WHERE key = ?", (key,)).fetchone()
        return json.loads(row["document"]) if row is not None else None

    def change(self, key: str, change: Callable[[Document], Document]) -> bool:
        """Read and write in one transaction that locks out other processes."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                row = self._connection.execute("SELECT document FROM prediction WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    self._put(key, change(json.loads(row["document"])))
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
        return row is not None

    def delete(self, key: str) -> bool:
        """Delete; False when there was none."""
        with self._lock:
            return self._connection.execute("DELETE FROM prediction WHERE key = ?", (key,)).rowcount > 0

    def find(self, tags: dict[str, str], first_ms: int, last_ms: int) -> list[Document]:
        """Return matching documents, oldest first."""
        wanted = [name for name in _TAGS if name in tags]
        where = " AND ".join([f"{name} = ?" for name in wanted] + ["creation_date BETWEEN ? AND ?"])
        with self._lock:
            rows = self._connection.execute(
                f"SELECT document FROM prediction WHERE {where} ORDER BY creation_date",  # noqa: S608 - own column names
                (*(tags[name] for name in wanted), first_ms, last_ms),
            ).fetchall()
        return [json.loads(row["document"]) for row in rows]

    def _put(self, key: str, document: Document) -> None:
        marks = ", ".join("?" * (len(_TAGS) + 3))
        self._connection.execute(
            f"INSERT OR REPLACE INTO prediction (key, document, creation_date, {', '.join(_TAGS)}) VALUES ({marks})",  # noqa: S608 - own column names
            (
                key,
                json.dumps(document),
                document["creation_date"],
                *(document["metadata"].get(name, "") for name in _TAGS),
            ),
        )
