"""Answers on disk under the digest of what was asked, with a limit on their total size; the least used go first."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from fieldstation.core.files import write_file
from fieldstation.fleet.twin.model import Answer


class AnswerCache:
    """One JSON file per answer in `folder`. Safe for several processes: files appear whole, by rename."""

    def __init__(self, folder: Path, limit_bytes: int = 64 << 20) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def get(self, digest: str) -> Answer | None:
        """Return the answer kept under `digest`; one that cannot be read counts as absent."""
        path = self.folder / f"{digest}.json"
        try:
            raw = json.loads(path.read_text())
            os.utime(path)
            return Answer(**{**raw, "samples": tuple(raw["samples"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, digest: str, answer: Answer) -> None:
        """Keep `answer`, then drop the least recently used ones above the limit."""
        write_file(self.folder / f"{digest}.json", json.dumps(asdict(answer)), durable=False)
        self._shrink()

    def _shrink(self) -> None:
        files = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process shrinks too
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
