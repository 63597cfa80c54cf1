"""`sdk.storage.persistent`: objects with versions and expiry, on S3 or in a local folder. Sync, safe in threads."""

from __future__ import annotations

import builtins
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from fieldstation.pipeline.errors import BadKeyError
from fieldstation.pipeline.model import Process


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One version of an object. `version` is opaque; `expires` is UTC, None when it is kept for good."""

    key: str
    version: str
    expires: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class Object:
    """One version of an object with its bytes."""

    key: str
    version: str
    expires: datetime.datetime | None
    data: bytes

    def as_string(self, encoding: str = "utf-8") -> str:
        """Return the bytes as text."""
        return self.data.decode(encoding)

    def as_bytes(self) -> bytes:
        """Return the bytes."""
        return self.data


@dataclass(frozen=True, slots=True)
class Stored:
    """A version as a backend knows it."""

    info: ObjectInfo
    metadata: Mapping[str, str]
    latest: bool = True


class Backend(Protocol):
    """Versioned objects. Two implementations: S3 and a local folder."""

    def put(self, key: str, data: bytes, ttl_days: int | None, metadata: Mapping[str, str]) -> ObjectInfo:
        """Store a new version; durable when this returns."""

    def get(self, key: str, version: str | None) -> tuple[Stored, bytes] | None:
        """Return a version (the latest without one), or None when absent, deleted or expired."""

    def versions(self, prefix: str) -> list[Stored]:
        """Return all live versions of keys that begin with `prefix`, by key, newest first."""

    def delete(self, key: str, version: str | None) -> bool:
        """Delete one version for good, or without one put a delete marker; False when there was nothing."""


class PersistentStorage:
    """Objects under keys of your own; the reserved folder (`.kai`) is neither listed nor writable."""

    def __init__(self, backend: Backend, reserved: str, process: Process) -> None:
        self.backend = backend
        self._reserved = reserved
        self._metadata = {
            "product": process.product,
            "version": process.version,
            "workflow": process.workflow,
            "process": process.name,
        }

    def save(self, key: str, payload: BinaryIO | bytes, ttl_days: int | None = None) -> ObjectInfo:
        """Store a new version of `key` from a binary file or bytes; with `ttl_days` it expires so many days later.

        Raises BadKeyError for an empty or reserved key, StorageError when the storage cannot be reached.
        """
        self._check(key)
        if ttl_days is not None and ttl_days < 1:
            raise BadKeyError(f"ttl_days must be at least 1, not {ttl_days}.")
        data = payload if isinstance(payload, bytes) else payload.read()
        return self.backend.put(key, data, ttl_days, self._metadata)

    def get(self, key: str, version: str | None = None) -> Object | None:
        """Return the latest version of `key`, or the given one; None when there is none."""
        self._check(key)
        found = self.backend.get(key, version)
        if found is None:
            return None
        stored, data = found
        return Object(key, stored.info.version, stored.info.expires, data)

    def list(self) -> list[ObjectInfo]:
        """Return the latest version of every object."""
        return [s.info for s in self.backend.versions("") if s.latest and not s.info.key.startswith(self._reserved)]

    def list_versions(self, key: str) -> builtins.list[ObjectInfo]:
        """Return the versions of `key`, newest first."""
        self._check(key)
        return [stored.info for stored in self.backend.versions(key) if stored.info.key == key]

    def delete(self, key: str, version: str | None = None) -> bool:
        """Delete one version, or hide the object behind a delete marker; False when there was nothing."""
        self._check(key)
        return self.backend.delete(key, version)

    def _check(self, key: str) -> None:
        if not key:
            raise BadKeyError(key="''", problem="it is empty")
        if key.startswith(self._reserved):
            raise BadKeyError(key=repr(key), problem=f"{self._reserved} is reserved for the system")
