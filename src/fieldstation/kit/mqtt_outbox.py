"""A durable queue in front of the MQTT client: what is published while the line is down is sent later.

async with MqttOutbox(MqttClient(settings), Path("outbox.db")) as outbox:
    await outbox.publish("roof/t", b"21.5")        # returns when it is on disk
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from fieldstation.core.errors import FieldstationError, StoreError
from fieldstation.core.store import Writer, connect, migrate, numbered
from fieldstation.kit.mqtt import MqttClient, MqttPublishRefusedError, Payload
from fieldstation.kit.mqtt_model import QoS, check_topic

log = logging.getLogger(__name__)

T = TypeVar("T")

_CHUNK = 500


class OutboxFullError(FieldstationError):
    """The MQTT outbox {path} holds {limit} messages and takes no more. Bring the line back, or raise its limit."""


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    topic: str
    payload: bytes
    qos: QoS
    retain: bool


class MqttOutbox:
    """Messages on disk until the broker has acknowledged them, sent oldest first, in order per topic.

    One process per file. A crash between the broker's acknowledgement and our note of it sends a message once more;
    nothing else does. A message the broker refuses is set aside and does not block the others.
    """

    def __init__(self, client: MqttClient, path: Path, *, max_messages: int = 1_000_000) -> None:
        self.client = client
        self.path = path
        self.max_messages = max_messages
        self._owns_client = False
        self._writer: Writer | None = None
        self._waiting = 0
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        connection = connect(self.path)
        migrate(connection, numbered(files("fieldstation.kit.sql") / "outbox"), self.path)
        self._writer = Writer(connection)
        self._waiting = await self._do(lambda db: _count(db, "refused IS NULL"))
        self._mark()
        if not self.client.started:
            self._owns_client = True
            await self.client.start()
        self._sender = asyncio.create_task(self._send_all(), name="mqtt-outbox")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
        if self._owns_client:
            await self.client.stop()
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)

    async def publish(self, topic: str, payload: Payload = b"", qos: QoS = 1, retain: bool = False) -> None:
        """Put a message on disk; it is sent when the line stands. QoS 1 or 2: with 0 nobody would say it arrived."""
        check_topic(topic)
        if qos not in (1, 2):
            raise ValueError(f"the outbox needs QoS 1 or 2, not {qos}: it waits for acknowledgements")
        if self._waiting >= self.max_messages:
            raise OutboxFullError(path=self.path, limit=self.max_messages)
        data = payload.encode() if isinstance(payload, str) else bytes(payload or b"")
        # Counted before it is on disk, so that a thousand publishers at once cannot pass the limit together.
        self._waiting += 1
        written = self._submit(
            lambda db: db.execute(
                "INSERT INTO outbox (topic, payload, qos, retain) VALUES (?, ?, ?, ?)", (topic, data, qos, retain)
            )
        )
        try:
            await asyncio.wrap_future(written)
        except sqlite3.Error as error:
            self._waiting -= 1
            raise StoreError(path=self.path, problem=error) from error
        except asyncio.CancelledError:
            if written.cancel():
                self._waiting -= 1
            raise
        self._mark()

    @property
    def waiting(self) -> int:
        """How many messages are still owed to the broker."""
        return self._waiting

    async def refused(self) -> list[tuple[str, bytes, str]]:
        """Return (topic, payload, reason) of the messages that the broker refused for good."""
        return await self._do(
            lambda db: [
                (row["topic"], row["payload"], row["refused"])
                for row in db.execute("SELECT * FROM outbox WHERE refused IS NOT NULL ORDER BY id")
            ]
        )

    async def flush(self, timeout_s: float | None = None) -> None:
        """Wait until everything has been acknowledged by the broker."""
        async with asyncio.timeout(timeout_s):
            await self._empty.wait()

    def _mark(self) -> None:
        if self._waiting:
            self._empty.clear()
            self._news.set()
        else:
            self._empty.set()

    def _submit(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        if self._writer is None:
            raise StoreError(path=self.path, problem="the outbox is not open")
        return self._writer.submit(job)

    async def _do(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.wrap_future(self._submit(job))
        except sqlite3.Error as error:
            raise StoreError(path=self.path, problem=error) from error

    async def _send_all(self) -> None:
        failures = 0
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while rows := await self._do(_oldest):
                    await self._send_chunk(rows)
                    failures = 0
            except StoreError as error:
                # What was sent but could not be crossed out is sent again: twice is better than never.
                log.error("%s", error)
                await asyncio.sleep(self.client.settings.backoff.delay(failures))
                failures += 1
                self._news.set()

    async def _send_chunk(self, rows: list[_Row]) -> None:
        # The client sends in the order of these calls and keeps it across breaks of the line.
        async with asyncio.TaskGroup() as group:
            results = [group.create_task(self._send(row)) for row in rows]
        refused = [(reason, row.id) for row, task in zip(rows, results, strict=True) if (reason := task.result())]
        await self._do(lambda db: _settle(db, refused, rows[-1].id))
        self._waiting -= len(rows)
        self._mark()

    async def _send(self, row: _Row) -> str | None:
        try:
            await self.client.publish(row.topic, row.payload, row.qos, row.retain, timeout_s=math.inf)
        except MqttPublishRefusedError as error:
            log.error("set aside: %s", error)
            return str(error)
        return None


def _oldest(db: sqlite3.Connection) -> list[_Row]:
    query = "SELECT id, topic, payload, qos, retain FROM outbox WHERE refused IS NULL ORDER BY id LIMIT ?"
    return [_Row(r["id"], r["topic"], r["payload"], r["qos"], bool(r["retain"])) for r in db.execute(query, (_CHUNK,))]


def _settle(db: sqlite3.Connection, refused: list[tuple[str, int]], last: int) -> None:
    db.executemany("UPDATE outbox SET refused = ? WHERE id = ?", refused)
    db.execute("DELETE FROM outbox WHERE refused IS NULL AND id <= ?", (last,))


def _count(db: sqlite3.Connection, condition: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM outbox WHERE {condition}").fetchone()[0])  # noqa: S608 - ours
