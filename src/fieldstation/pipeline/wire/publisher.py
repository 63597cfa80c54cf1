"""Publish with confirmation, many at a time: nothing is dropped, and nothing is counted twice by the server."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from fieldstation.pipeline.bus import Confirm
from fieldstation.pipeline.errors import PublishError
from fieldstation.pipeline.model import Counts

log = logging.getLogger(__name__)

CONFIRM_S = 5.0  # without a confirmation by then a message is sent again, under the same id
RETRY_S = 0.25  # after the server said "not now" (an election, a full disk)
REFUSED_S = 30.0  # a subject that no stream takes for so long is a mistake, not an election
_SWEEP_S = 0.25


class _Unconfirmed:
    __slots__ = ("body", "done", "due", "first", "headers", "subject")

    def __init__(self, subject: str, body: bytes, headers: dict[str, str], done: Confirm) -> None:
        self.subject = subject
        self.body = body
        self.headers = headers
        self.done = done
        self.first = time.monotonic()
        self.due = self.first + CONFIRM_S


class Publisher:
    """Hands messages to the connection in order from one task, and matches the server's answers to them."""

    def __init__(self, client: Client, counts: Counts) -> None:
        self._client = client
        self._counts = counts
        self._waiting: deque[tuple[str, bytes, str, dict[str, str] | None]] = deque()  # subject, body, reply, headers
        self._unconfirmed: dict[int, _Unconfirmed] = {}
        self._number = 0
        self._inbox = ""
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._up = asyncio.Event()

    async def start(self) -> None:
        """Listen for confirmations. Call once the client is connected."""
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._answer, pending_msgs_limit=0, pending_bytes_limit=0)
        self._up.set()

    def send(
        self, subject: str, body: bytes, message_id: str, done: Confirm, headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish under `message_id`; see Bus.send."""
        self._number += 1
        entry = _Unconfirmed(subject, body, {"Nats-Msg-Id": message_id, **(headers or {})}, done)
        self._unconfirmed[self._number] = entry
        self._counts.published += 1
        self._queue(subject, body, f"{self._inbox}.{self._number}", entry.headers)

    def post(self, subject: str, body: bytes) -> None:
        """Publish without confirmation: acknowledgements."""
        self._queue(subject, body, "", None)

    def _queue(self, subject: str, body: bytes, reply: str, headers: dict[str, str] | None) -> None:
        self._waiting.append((subject, body, reply, headers))
        self._wake.set()

    def down(self) -> None:
        """The line is gone: what is handed in now waits here."""
        self._up.clear()

    def up(self) -> None:
        """The line is back: send again what was not confirmed, before anything new."""
        queued = {reply for _, _, reply, _ in self._waiting}
        again: list[tuple[str, bytes, str, dict[str, str] | None]] = []
        now = time.monotonic()
        for number, entry in self._unconfirmed.items():
            reply = f"{self._inbox}.{number}"
            if reply not in queued:
                entry.due = now + CONFIRM_S
                again.append((entry.subject, entry.body, reply, entry.headers))
        self._counts.republished += len(again)
        self._waiting.extendleft(reversed(again))
        self._up.set()
        self._wake.set()

    async def flush(self) -> None:
        """Wait until everything handed in is written and the server has seen it."""
        while self._waiting:
            self._idle.clear()
            await self._idle.wait()
        await self._client.flush()

    @property
    def unconfirmed(self) -> int:
        """How many messages wait for their confirmation."""
        return len(self._unconfirmed)

    async def run(self) -> None:
        """Write what is handed in and look after what is not confirmed, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write())
            group.create_task(self._sweep())

    async def _write(self) -> None:
        waiting = self._waiting
        publish = self._client.publish
        while True:
            await self._wake.wait()
            await self._up.wait()
            self._wake.clear()
            while waiting:
                subject, body, reply, headers = waiting[0]
                try:
                    await publish(subject, body, reply, headers)
                except nats.errors.MaxPayloadError as error:
                    self._finish(reply, PublishError(subject=subject, problem=error))
                except nats.errors.ConnectionClosedError:
                    self._up.clear()  # the bus makes a new connection, or gives up, and tells us
                    break
                except nats.errors.OutboundBufferLimitError:
                    await asyncio.sleep(RETRY_S)
                    continue
                except nats.errors.Error as error:
                    self._finish(reply, PublishError(subject=subject, problem=error))
                waiting.popleft()
            else:
                self._idle.set()

    def _finish(self, reply: str, error: Exception | None) -> None:
        if not reply:
            return
        entry = self._unconfirmed.pop(int(reply.rpartition(".")[2]), None)
        if entry is not None:
            entry.done(error)

    async def _answer(self, msg: Msg) -> None:
        number = int(msg.subject.rpartition(".")[2])
        data = msg.data
        if b'"error"' not in data and data:
            entry = self._unconfirmed.pop(number, None)
            if entry is not None:
                if b'"duplicate"' in data:
                    self._counts.duplicates += 1
                entry.done(None)
            return
        entry = self._unconfirmed.get(number)
        if entry is None:
            return
        # An empty answer is the server's "no responders": no stream takes the subject, or its leader is being elected.
        error: dict[str, Any] = (
            json.loads(data)["error"] if data else {"code": 503, "description": "no stream takes this subject"}
        )
        now = time.monotonic()
        if error.get("code", 500) >= 500 and now - entry.first < REFUSED_S:
            entry.due = now + RETRY_S
            return
        del self._unconfirmed[number]
        entry.done(PublishError(subject=entry.subject, problem=error.get("description", "refused")))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            if not self._up.is_set():
                continue
            now = time.monotonic()
            for number, entry in list(self._unconfirmed.items()):
                if entry.due < now:
                    entry.due = now + CONFIRM_S
                    self._counts.republished += 1
                    self._queue(entry.subject, entry.body, f"{self._inbox}.{number}", entry.headers)
