"""Versioned objects in a local folder: one directory per key, one whole file per version."""

from __future__ import annotations

import datetime
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from fieldstation.core.files import state_folder, write_file
from fieldstation.pipeline.errors import StorageError
from fieldstation.pipeline.model import Process
from fieldstation.pipeline.persistent import ObjectInfo, Stored

_DELETED = ".deleted"
_META = ".json"


def default_folder(configured: str, process: Process) -> Path:
    """Where objects go without a configured folder: the user's state, one folder per product."""
    if configured:
        return Path(configured)
    return state_folder() / "pipeline" / process.product / "objects"


class FolderBackend:
    """See persistent.Backend. A version is a time in nanoseconds and some random digits, so they sort by age."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes, ttl_days: int | None, metadata: Mapping[str, str]) -> ObjectInfo:
        """Write the metadata first, then the data under its final name: what has no data does not exist."""
        expires = None
        if ttl_days is not None:
            expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=ttl_days)
        with self._lock:
            version = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        directory = self._directory(key)
        about = {"metadata": dict(metadata), "expires": expires.isoformat() if expires else None}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_file(directory / (version + _META), json.dumps(about))
            write_file(directory / version, data)
        except OSError as error:
            raise StorageError(what=f"folder {self._folder}", problem=error.strerror or error) from error
        return ObjectInfo(key, version, expires)

    def get(self, key: str, version: str | None) -> tuple[Stored, bytes] | None:
        """Return (what is known of it, bytes), or None."""
        for stored in self._of(self._directory(key)):
            if stored.info.version == version or (version is None and stored.latest):
                return stored, (self._directory(key) / stored.info.version).read_bytes()
        return None

    def versions(self, prefix: str) -> list[Stored]:
        """Return live versions, by key, newest first."""
        if not self._folder.is_dir():
            return []
        keys = sorted(unquote(path.name.removeprefix("k_")) for path in self._folder.iterdir() if path.is_dir())
        return [stored for key in keys if key.startswith(prefix) for stored in self._of(self._directory(key))]

    def delete(self, key: str, version: str | None) -> bool:
        """Delete a version, or put a marker that hides the older ones from `get` without a version."""
        directory = self._directory(key)
        found = [s for s in self._of(directory) if s.latest or version is not None]
        if version is None:
            if not found:
                return False
            (directory / f"{time.time_ns():020d}-{secrets.token_hex(4)}{_DELETED}").touch()
            return True
        if version not in {stored.info.version for stored in found}:
            return False
        (directory / version).unlink()
        (directory / (version + _META)).unlink(missing_ok=True)
        return True

    def _directory(self, key: str) -> Path:
        # Quoted, so that no key climbs out of the folder; the prefix keeps "." and ".." ordinary names.
        return self._folder / f"k_{quote(key, safe='')}"

    def _of(self, directory: Path) -> Iterator[Stored]:
        if not directory.is_dir():
            return
        key = unquote(directory.name.removeprefix("k_"))
        now = datetime.datetime.now(datetime.UTC)
        latest = True
        for name in sorted((path.name for path in directory.iterdir()), reverse=True):
            if name.endswith(_DELETED):
                latest = False
            elif not name.endswith((_META, ".new")):
                about = json.loads((directory / (name + _META)).read_text())
                expires = datetime.datetime.fromisoformat(about["expires"]) if about["expires"] else None
                if expires is not None and expires <= now:
                    (directory / name).unlink(missing_ok=True)
                    (directory / (name + _META)).unlink(missing_ok=True)
                    continue
                yield Stored(ObjectInfo(key, name, expires), about["metadata"], latest)
                latest = False
