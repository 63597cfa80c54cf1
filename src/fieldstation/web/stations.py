"""Stations that report over NATS: what they sent is read from their stream, how they are is asked of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from fieldstation.core.errors import FieldstationError
from fieldstation.core.log import mask
from fieldstation.core.retry import Backoff
from fieldstation.core.security import client_tls, own_token
from fieldstation.web.config import PanelConfig
from fieldstation.web.errors import WebError
from fieldstation.web.station_view import StationView

log = logging.getLogger(__name__)

ASK_EVERY_S = 3.0
ANSWER_S = 2.0
LOOKED_S = 15.0  # stations are asked while somebody has looked within so many seconds
VERDICT_S = 120.0
MANY = 1000
KINDS = ("answer", "data", "log")


class StationUnreachableError(WebError):
    """The NATS server of the stations is not reached: {problem}. Nothing was sent."""


class StationUnknownError(WebError):
    """No station {id!r} has reported."""


class Stations:
    """All stations of one NATS server; a service of its own (`core.service.Service`)."""

    name = "stations"

    def __init__(self, config: PanelConfig) -> None:
        self.config = config
        self.views: dict[str, StationView] = {}
        self.problem = "The NATS server was not reached yet."
        self._js: JetStreamContext | None = None
        self._looked_at = 0.0
        self._changed = asyncio.Event()
        self._taken: dict[str, int] = {}  # kind -> the last message of the stream that was read
        self._stream: object = None  # when that stream was made: another one counts anew

    async def start(self) -> None:
        """Nothing to get ready: a server that is away is tried again."""

    async def run(self) -> None:
        """Read and ask until cancelled."""
        backoff = iter(Backoff(initial_s=0.5, ceiling_s=10.0))
        while True:
            try:
                await self._session()
            except* (OSError, TimeoutError, nats.errors.Error, FieldstationError) as group:
                if not self.problem:  # it was reached
                    backoff = iter(Backoff(initial_s=0.5, ceiling_s=10.0))
                reason = str(group.exceptions[0]) or type(group.exceptions[0]).__name__
                self.problem = f"The stations' server {mask(self.config.nats)} is not reached: {mask(reason)}"
                log.info("stations: %s", self.problem)
            await asyncio.sleep(next(backoff))

    async def stop(self) -> None:
        """Nothing is left to let go of."""

    def health(self) -> dict[str, object]:
        """Say how it is."""
        return {"ok": not self.problem, "stations": len(self.views)}

    def look(self) -> list[StationView]:
        """Return all stations, by name; they are asked how they are for a while after."""
        self._looked_at = time.monotonic()
        return [view for _, view in sorted(self.views.items())]

    def view(self, identity: str) -> StationView:
        """Return one station."""
        self._looked_at = time.monotonic()
        if identity not in self.views:
            raise StationUnknownError(id=identity)
        return self.views[identity]

    async def push(self, identity: str, config: Mapping[str, Any]) -> str:
        """Publish a config to a station and wait for its verdict; returns the sentence about it.

        WebError when the station rejects it, with its reason.
        """
        view, revision = self.view(identity), int(config["general"]["config_revision"])
        if self._js is None:
            raise StationUnreachableError(problem=self.problem)
        since = time.time() - 5  # the station's clock may be a little behind
        subject = f"{self.config.station_prefix}.{identity}.config"
        try:
            await self._js.publish(subject, json.dumps(config).encode(), timeout=10)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise StationUnreachableError(problem=str(error) or type(error).__name__) from error
        try:
            async with asyncio.timeout(VERDICT_S):
                while (verdict := view.answer_to(revision, since)) is None:
                    self._looked_at = time.monotonic()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return f"Revision {revision} is handed over; {identity} has not answered yet."
        if verdict["status"] == "rejected":
            raise WebError(f"{identity} rejected revision {revision}: {verdict['reason'] or 'it gave no reason'}.")
        return f"{identity} runs with revision {revision}."

    async def _session(self) -> None:
        # A line that breaks is made anew here: nats-py takes up an ordered consumer that began at a time only wrongly.
        options: dict[str, Any] = {"servers": [self.config.nats], "connect_timeout": 5, "allow_reconnect": False}
        if self.config.nats_token_file is not None:
            options["token"] = own_token(self.config.nats_token_file)
        if self.config.nats_ca is not None or self.config.nats.startswith("tls://"):
            options["tls"] = client_tls(self.config.nats_ca)
        gone = asyncio.Event()

        async def closed() -> None:
            gone.set()

        trouble = ["it has gone"]

        async def failed(error: Exception) -> None:
            trouble[:] = [str(error) or type(error).__name__]
            gone.set()

        client = await nats.connect(**options, closed_cb=closed, error_cb=failed)
        try:
            self._js = client.jetstream()
            await self._await_stream(self._js)
            gone.clear()
            self.problem = ""
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read(self._js, kind)) for kind in KINDS]
                tasks.append(group.create_task(self._ask_all(client)))
                await gone.wait()
                for task in tasks:
                    task.cancel()
            raise TimeoutError(trouble[0])
        finally:
            self._js = None
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), 5)

    async def _await_stream(self, js: JetStreamContext) -> None:
        while True:
            try:
                made = (await js.stream_info(self.config.station_stream)).created
                if made != self._stream:
                    self._stream = made
                    self._taken.clear()
                return
            except NotFoundError:
                self.problem = f"No station has reported yet: there is no stream {self.config.station_stream}."
            await asyncio.sleep(1.0)

    async def _read(self, js: JetStreamContext, kind: str) -> None:
        subscription = await js.subscribe(
            f"{self.config.station_prefix}.*.{kind}",
            stream=self.config.station_stream,
            ordered_consumer=True,
            config=self._begin(kind),
        )
        async for message in subscription.messages:
            self._take(message.subject.rsplit(".", 2)[1], message.data)
            self._taken[kind] = message.metadata.sequence.stream

    def _begin(self, kind: str) -> api.ConsumerConfig:
        if kind in self._taken:
            return api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self._taken[kind] + 1
            )
        if kind == "answer":  # answers are few, and tell which configs one can go back to
            return api.ConsumerConfig(deliver_policy=api.DeliverPolicy.ALL)
        begin = datetime.now(UTC) - timedelta(seconds=self.config.station_history_s)
        text = begin.isoformat().replace("+00:00", "Z")
        by_time = api.DeliverPolicy.BY_START_TIME
        return api.ConsumerConfig(deliver_policy=by_time, opt_start_time=text)  # type: ignore[arg-type]  # the server wants RFC 3339, the library says int

    def _take(self, identity: str, data: bytes) -> None:
        if identity not in self.views and len(self.views) >= MANY:
            return
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # not one of ours
            self.views.setdefault(identity, StationView(identity)).take(json.loads(data))
            self._changed.set()

    async def _ask_all(self, client: Any) -> None:
        while True:
            if time.monotonic() - self._looked_at < LOOKED_S:
                await asyncio.gather(*(self._ask(client, view) for view in list(self.views.values())))
            await asyncio.sleep(ASK_EVERY_S if self.views else 0.5)

    async def _ask(self, client: Any, view: StationView) -> None:
        try:
            answer = await client.request(f"{self.config.station_prefix}-status.{view.identity}", b"", timeout=ANSWER_S)
            found = json.loads(answer.data)
            view.status = found if isinstance(found, dict) else None
        except (nats.errors.Error, TimeoutError, ValueError):
            view.status = None
