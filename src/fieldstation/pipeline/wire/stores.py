"""Key-value buckets and object stores of NATS, readable by any standard client."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import uuid
from collections.abc import AsyncIterator

import nats.errors
from nats.js import JetStreamContext, kv
from nats.js.errors import (
    APIError,
    BucketNotFoundError,
    KeyDeletedError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoKeysError,
    NotFoundError,
    ObjectNotFoundError,
)
from nats.js.object_store import ObjectStore

from fieldstation.pipeline.bus import Bucket, Objects
from fieldstation.pipeline.errors import BucketMissingError
from fieldstation.pipeline.wire.patience import patiently


async def open_bucket(js: JetStreamContext, name: str, url: str) -> Bucket:
    """Open a key-value bucket, or raise BucketMissingError."""
    try:
        return _Bucket(await patiently(lambda: js.key_value(name), url), url)
    except (BucketNotFoundError, NotFoundError) as error:
        raise BucketMissingError(kind="key-value bucket", bucket=name, url=url) from error


async def open_objects(js: JetStreamContext, name: str, url: str) -> Objects:
    """Open an object store, or raise BucketMissingError."""
    try:
        return _Objects(js, name, await patiently(lambda: js.object_store(name), url))
    except (BucketNotFoundError, NotFoundError) as error:
        raise BucketMissingError(kind="object store", bucket=name, url=url) from error


class _Bucket:
    # Each call waits out an election, so that neither a start nor a handler fails for the sake of one.

    def __init__(self, inner: kv.KeyValue, url: str) -> None:
        self._inner = inner
        self._url = url

    async def get(self, key: str) -> str | None:
        try:
            entry = await patiently(lambda: self._inner.get(key), self._url)
        except (KeyNotFoundError, KeyDeletedError):
            return None
        return (entry.value or b"").decode(errors="replace")

    async def put(self, key: str, value: str) -> None:
        await patiently(lambda: self._inner.put(key, value.encode()), self._url)

    async def create(self, key: str, value: str) -> bool:
        try:
            await patiently(lambda: self._inner.create(key, value.encode()), self._url)
        except KeyWrongLastSequenceError:
            return False
        return True

    async def delete(self, key: str) -> None:
        await patiently(lambda: self._inner.delete(key), self._url)

    async def keys(self) -> list[str]:
        try:
            return await patiently(self._inner.keys, self._url)
        except NoKeysError:
            return []

    async def watch(self) -> AsyncIterator[tuple[str, str | None] | None]:
        watcher = await patiently(self._inner.watchall, self._url)
        try:
            while True:
                try:
                    entry = await watcher.updates(timeout=60)  # type: ignore[no-untyped-call]  # nats-py types most
                except (nats.errors.TimeoutError, TimeoutError):
                    continue
                if entry is None:
                    yield None
                elif entry.operation in (kv.KV_DEL, kv.KV_PURGE):
                    yield entry.key, None
                else:
                    yield entry.key, (entry.value or b"").decode(errors="replace")
        finally:
            await watcher.stop()  # type: ignore[no-untyped-call]  # as above


_CHUNK = 128 * 1024
_WRONG_LAST_SEQUENCE = 10071


class _Objects:
    def __init__(self, js: JetStreamContext, bucket: str, inner: ObjectStore) -> None:
        self._js = js
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._inner = inner

    async def exists(self, key: str) -> bool:
        try:
            return not (await self._inner.get_info(key)).deleted
        except (ObjectNotFoundError, NotFoundError):
            return False

    async def get(self, key: str) -> bytes | None:
        try:
            found = await self._inner.get(key)
        except (ObjectNotFoundError, NotFoundError):
            return None
        return found.data or b""

    async def put(self, key: str, payload: bytes) -> None:
        await self._inner.put(key, payload)

    async def create(self, key: str, payload: bytes) -> bool:
        # The client's own put replaces what is there. This one lets the server decide: the object's metadata is
        # accepted only as the successor of what we saw (nothing, or a delete marker).
        seen = 0
        subject = f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(key.encode()).decode()}"
        try:
            last = await self._js.get_last_msg(self._stream, subject)
            if not json.loads(last.data or b"{}").get("deleted"):
                return False
            seen = last.seq or 0
        except NotFoundError:
            pass
        chunks = f"$O.{self._bucket}.C.{uuid.uuid4().hex}"
        pieces = [payload[at : at + _CHUNK] for at in range(0, len(payload), _CHUNK)]
        for piece in pieces:
            await self._js.publish(chunks, piece)
        digest = base64.urlsafe_b64encode(hashlib.sha256(payload).digest()).decode()
        meta = {
            "name": key,
            "options": {"max_chunk_size": _CHUNK},
            "bucket": self._bucket,
            "nuid": chunks.rpartition(".")[2],
            "size": len(payload),
            "mtime": datetime.datetime.now(datetime.UTC).isoformat(),
            "chunks": len(pieces),
            "digest": f"SHA-256={digest}",
        }
        headers = {"Nats-Rollup": "sub", "Nats-Expected-Last-Subject-Sequence": str(seen)}
        try:
            await self._js.publish(subject, json.dumps(meta).encode(), headers=headers)
        except APIError as error:
            await self._js.purge_stream(self._stream, subject=chunks)
            if error.err_code == _WRONG_LAST_SEQUENCE:
                return False
            raise
        return True

    async def delete(self, key: str) -> bool:
        # The client's own delete answers with nothing on some versions; look first.
        if not await self.exists(key):
            return False
        await self._inner.delete(key)
        return True

    async def list(self) -> list[str]:
        try:
            entries = await self._inner.list(ignore_deletes=True)
        except NotFoundError:
            return []
        return [entry.name for entry in entries]
