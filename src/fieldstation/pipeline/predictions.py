"""`sdk.predictions`: results kept for later comparison, on Redis or in a SQLite file. Sync, safe in threads."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fieldstation.pipeline.errors import PredictionNotFoundError
from fieldstation.pipeline.model import Process
from fieldstation.pipeline.work import current

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TimestampRange:
    """From start to end, both inclusive, as aware datetimes."""

    start_date: datetime.datetime
    end_date: datetime.datetime


@dataclass(frozen=True, slots=True)
class Filter:
    """What `find` looks for. `version` None means this process' own version; other None fields match anything."""

    creation_date: TimestampRange
    version: str | None = None
    workflow: str | None = None
    workflow_type: str | None = None
    process: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A stored prediction; dates are Unix milliseconds."""

    creation_date: int
    last_modified: int
    payload: Any
    metadata: dict[str, str]


class Table(Protocol):
    """Documents by key. Two implementations: Redis and SQLite."""

    def put(self, key: str, document: Document) -> None:
        """Store or replace."""

    def get(self, key: str) -> Document | None:
        """Return the document, or None."""

    def change(self, key: str, change: Callable[[Document], Document]) -> bool:
        """Replace the document by what `change` makes of it, atomically; False when there is none."""

    def delete(self, key: str) -> bool:
        """Delete; False when there was none."""

    def find(self, tags: dict[str, str], first_ms: int, last_ms: int) -> list[Document]:
        """Return every document created in the range whose metadata equals `tags`, oldest first."""


class Predictions:
    """Payloads are what JSON holds: objects, lists, numbers, text."""

    def __init__(self, table: Table, process: Process) -> None:
        self._table = table
        self._process = process

    def save(self, prediction_id: str, payload: Any) -> None:
        """Store `payload` under an id of yours; an existing one is replaced."""
        now = _now_ms()
        work = current.get()
        metadata = {
            "product": self._process.product,
            "version": self._process.version,
            "workflow": self._process.workflow,
            "workflow_type": self._process.workflow_type,
            "process": self._process.name,
            "request_id": work.message.request_id if work is not None and work.message is not None else "",
        }
        document = {"creation_date": now, "last_modified": now, "payload": payload, "metadata": metadata}
        self._table.put(self._key(prediction_id), document)

    def get(self, prediction_id: str) -> Prediction:
        """Return the prediction; PredictionNotFoundError when there is none."""
        document = self._table.get(self._key(prediction_id))
        if document is None:
            raise PredictionNotFoundError(id=repr(prediction_id))
        return _prediction(document)

    def find(self, filter: Filter) -> list[Prediction]:
        """Return all predictions that match, oldest first, however many."""
        tags = {"product": self._process.product, "version": filter.version or self._process.version}
        for name in ("workflow", "workflow_type", "process", "request_id"):
            value = getattr(filter, name)
            if value is not None:
                tags[name] = value
        span = filter.creation_date
        first, last = (int(date.timestamp() * 1000) for date in (span.start_date, span.end_date))
        return [_prediction(document) for document in self._table.find(tags, first, last)]

    def update(self, prediction_id: str, change: Callable[[Any], Any]) -> None:
        """Replace the payload by `change(payload)`; creation date and metadata stay. Nobody else's change is lost."""

        def apply(document: Document) -> Document:
            return {**document, "payload": change(document["payload"]), "last_modified": _now_ms()}

        if not self._table.change(self._key(prediction_id), apply):
            raise PredictionNotFoundError(id=repr(prediction_id))

    def delete(self, prediction_id: str) -> None:
        """Delete the prediction; PredictionNotFoundError when there is none."""
        if not self._table.delete(self._key(prediction_id)):
            raise PredictionNotFoundError(id=repr(prediction_id))

    def _key(self, prediction_id: str) -> str:
        return f"{self._process.product}:{prediction_id}"


def _prediction(document: Document) -> Prediction:
    return Prediction(
        document["creation_date"], document["last_modified"], document["payload"], dict(document["metadata"])
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
