"""`sdk.storage.ephemeral`: byte strings shared between processes, kept by the broker for some days."""

from __future__ import annotations

import re

from fieldstation.pipeline.bus import Objects
from fieldstation.pipeline.errors import NoEphemeralStorageError, ObjectExistsError


class EphemeralStorage:
    """The object store of the process (`objectStore` in krt.yaml). Every call needs one to be configured."""

    def __init__(self, objects: Objects | None) -> None:
        self._objects = objects

    async def save(self, key: str, payload: bytes, overwrite: bool = False) -> None:
        """Store `payload` under `key`; ObjectExistsError when there is one and `overwrite` is false (atomic)."""
        store = self._store()
        if overwrite:
            await store.put(key, bytes(payload))
        elif not await store.create(key, bytes(payload)):
            raise ObjectExistsError(key=repr(key))

    async def get(self, key: str) -> tuple[bytes | None, bool]:
        """Return (bytes, True), or (None, False) when absent or deleted."""
        payload = await self._store().get(key)
        return payload, payload is not None

    async def list(self, regexp: str | None = None) -> list[str]:
        """Return the names of all objects, or of those in which `regexp` is found (anywhere; `^` anchors it)."""
        keys = await self._store().list()
        if regexp is None:
            return keys
        pattern = re.compile(regexp)
        return [key for key in keys if pattern.search(key)]

    async def delete(self, key: str) -> bool:
        """Delete one object; False when there was none."""
        return await self._store().delete(key)

    async def purge(self, regexp: str | None = None) -> None:
        """Delete every object, or those in which `regexp` is found."""
        for key in await self.list(regexp):
            await self._store().delete(key)

    def _store(self) -> Objects:
        if self._objects is None:
            raise NoEphemeralStorageError
        return self._objects
