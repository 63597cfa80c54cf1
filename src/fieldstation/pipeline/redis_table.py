"""Predictions in Redis with its JSON and search modules, in the documented shape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from fieldstation.core.plugins import require
from fieldstation.pipeline.config import PredictionsConfig
from fieldstation.pipeline.errors import StorageError
from fieldstation.pipeline.predictions import Document

PAGE = 500
_TRIES = 50  # of an update that others keep overtaking


class RedisTable:
    """See predictions.Table. Connects on first use."""

    def __init__(self, config: PredictionsConfig) -> None:
        redis = require("redis", extra="redis", feature="Predictions on Redis (predictions.endpoint)")
        host, _, port = config.endpoint.rpartition(":")
        self._errors = redis.RedisError
        self._watch_error = redis.WatchError
        self._index = config.index
        self._endpoint = config.endpoint
        self._client = redis.Redis(
            host=host or config.endpoint,
            port=int(port) if host else 6379,
            username=config.username or None,
            password=config.password or None,
            socket_timeout=5,
            socket_connect_timeout=5,
            protocol=2,
            decode_responses=True,
        )

    def put(self, key: str, document: Document) -> None:
        """Store or replace."""
        self._run("JSON.SET", key, "$", json.dumps(document))

    def get(self, key: str) -> Document | None:
        """Return the document, or None."""
        return _first(self._run("JSON.GET", key, "$"))

    def change(self, key: str, change: Callable[[Document], Document]) -> bool:
        """Optimistic: done again when somebody else wrote in between."""
        for _ in range(_TRIES):
            try:
                with self._client.pipeline() as pipe:
                    pipe.watch(key)
                    document = _first(pipe.execute_command("JSON.GET", key, "$"))
                    if document is None:
                        return False
                    pipe.multi()
                    pipe.execute_command("JSON.SET", key, "$", json.dumps(change(document)))
                    pipe.execute()
                    return True
            except self._watch_error:
                continue
            except self._errors as error:
                raise StorageError(what=f"Redis at {self._endpoint}", problem=error) from error
        raise StorageError(what=f"Redis at {self._endpoint}", problem="others keep changing this prediction")

    def delete(self, key: str) -> bool:
        """Delete; False when there was none."""
        return bool(self._run("DEL", key))

    def find(self, tags: dict[str, str], first_ms: int, last_ms: int) -> list[Document]:
        """Search page by page: the server's default page is ten results."""
        query = search_query(tags, first_ms, last_ms)
        found: list[Document] = []
        while True:
            answer = self._run(
                "FT.SEARCH",
                self._index,
                query,
                "SORTBY",
                "creation_date",
                "RETURN",
                "1",
                "$",
                "LIMIT",
                len(found),
                PAGE,
            )
            page = [_first(fields[1]) for fields in answer[2::2]]
            found += [document for document in page if document is not None]
            if len(found) >= answer[0] or not page:
                return found

    def _run(self, *command: Any) -> Any:
        try:
            return self._client.execute_command(*command)
        except self._errors as error:
            raise StorageError(what=f"Redis at {self._endpoint}", problem=error) from error


def search_query(tags: dict[str, str], first_ms: int, last_ms: int) -> str:
    """The query on the documented index: product and dates first, tags with everything but letters escaped."""
    parts = [f"@product:{{{_escape(tags['product'])}}}", f"@creation_date:[{first_ms} {last_ms}]"]
    parts += [f"@{name}:{{{_escape(value)}}}" for name, value in tags.items() if name != "product"]
    return " ".join(parts)


def _escape(value: str) -> str:
    return re.sub(r"([^A-Za-z0-9_])", r"\\\1", value)


def _first(text: str | None) -> Document | None:
    if text is None:
        return None
    value = json.loads(text)
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, dict) else None
