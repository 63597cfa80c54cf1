"""NATS JetStream: documented subjects, the message's unique id as `Nats-Msg-Id`. See docs/reference/station-nats.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from fieldstation.core.plugins import hidden, require
from fieldstation.core.retry import Backoff
from fieldstation.station.config import Config, NATSConfig
from fieldstation.station.errors import PoisonMessageError, StationConfigError
from fieldstation.station.health import told_by
from fieldstation.station.intake import hand_over, hand_over_unreadable, parse_json
from fieldstation.station.place import current_place
from fieldstation.station.store import QueueRow

log = logging.getLogger(__name__)

KIND = {"data": "data", "log": "log", "config": "answer"}
_ACK_TIMEOUT_S = 10.0


class Parcel(NamedTuple):
    """What is published for one row; `key` is its unique id."""

    subject: str
    payload: bytes
    key: str


def subjects(section: NATSConfig, station: str) -> dict[str, str]:
    """Return the subjects of a station: `<prefix>.<station>.data|log|answer|config`, and `status`, which is
    `<prefix>-status.<station>`: outside of the stream, since it is asked and answered, not kept.

    What a subject token may not hold (dots, spaces, wildcards) becomes `_` in the station's name.
    """
    token = "".join(c if c.isalnum() or c in "-_" else "_" for c in station)
    kept = {kind: f"{section.subject_prefix}.{token}.{kind}" for kind in ("data", "log", "answer", "config")}
    return {**kept, "status": f"{section.subject_prefix}-status.{token}"}


class NatsUplink:
    """Publishes to a stream that keeps messages by limits; the stream is made when it is not there."""

    def __init__(self, config: Config, name: str) -> None:
        section = config.all_uplinks()[name].nats_connection
        if section is None:
            raise StationConfigError(key=f"{name}.nats_connection", source="the config", problem="it is missing")
        # nats-py needs aiohttp for ws:// addresses only: nine megabytes of a small computer.
        unused = () if any(server.startswith("ws") for server in section.servers) else ("aiohttp",)
        with hidden(*unused):
            self._nats = require("nats", extra="station", feature="The uplink nats")
        self._section = section
        self._subjects = subjects(section, config.general.system_identifier)
        self._online = asyncio.Event()
        self._js: Any = None
        self._connects = 0
        self._last_error: str | None = None

    @property
    def connected(self) -> bool:
        """True while the server has accepted us and the stream is there."""
        return self._online.is_set()

    def status(self) -> dict[str, object]:
        """Return how often the line was made, and what went wrong last."""
        return {"connects": self._connects, "last_error": self._last_error}

    def encode(self, row: QueueRow) -> Parcel:
        """Return the row as JSON: id, timestamp, revision, body."""
        try:
            body = json.loads(row.body)
            entry = {"id": row.id, "timestamp": row.timestamp, "revision": row.revision, "body": body}
            return Parcel(self._subjects[KIND[body["variant"]]], json.dumps(entry, allow_nan=False).encode(), row.id)
        except (ValueError, KeyError, TypeError) as error:
            raise PoisonMessageError(identifier=row.seq, problem=f"its body is not understood ({error!r})") from error

    async def send(self, parcel: Parcel) -> None:
        """Publish until the stream has confirmed; a repeat within the duplicate window is no second message."""
        errors = require("nats.errors", extra="station", feature="The uplink nats")
        for delay in Backoff(initial_s=0.2, ceiling_s=10.0):
            await self._online.wait()
            try:
                headers = {"Nats-Msg-Id": parcel.key}
                await self._js.publish(parcel.subject, parcel.payload, timeout=_ACK_TIMEOUT_S, headers=headers)
                return
            except errors.MaxPayloadError as error:
                raise PoisonMessageError(identifier=parcel.key, problem="it is larger than the server takes") from error
            except (errors.Error, OSError, TimeoutError) as error:
                self._last_error = str(error) or type(error).__name__
                await asyncio.sleep(delay)

    async def run(self) -> None:
        """Stay connected until cancelled."""
        for delay in Backoff(initial_s=0.5, ceiling_s=60.0):
            try:
                await self._session()
            except (OSError, TimeoutError, self._nats.errors.Error) as error:
                self._last_error = str(error) or type(error).__name__
                log.warning("the NATS server cannot be used: %s. Next try in %.1f s.", self._last_error, delay)
            finally:
                self._online.clear()
            await asyncio.sleep(delay)

    async def _session(self) -> None:
        gone = asyncio.Event()

        async def disconnected() -> None:
            self._online.clear()

        async def reconnected() -> None:
            self._connects += 1
            self._online.set()

        async def closed() -> None:
            gone.set()

        async def failed(error: Exception) -> None:
            self._last_error = str(error)

        client = await self._nats.connect(
            **self._options(),
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            closed_cb=closed,
            error_cb=failed,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1.0,
            ping_interval=20,
            connect_timeout=10,
        )
        try:
            self._js = client.jetstream()
            await self._ensure_stream()
            # The last config is delivered with every subscription: what came while we were away is not missed.
            subscription = await self._js.subscribe(
                self._subjects["config"],
                stream=self._section.stream,
                ordered_consumer=True,
                deliver_policy=self._nats.js.api.DeliverPolicy.LAST_PER_SUBJECT,
            )
            await client.subscribe(self._subjects["status"], cb=self._tell_status)
            self._connects += 1
            self._last_error = None
            self._online.set()
            ended = asyncio.create_task(gone.wait())
            hearing = asyncio.create_task(self._hear(subscription))
            try:
                await asyncio.wait([ended, hearing], return_when=asyncio.FIRST_COMPLETED)
                if hearing.done():
                    hearing.result()
            finally:
                for task in (ended, hearing):
                    task.cancel()
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), 5)

    def _options(self) -> dict[str, Any]:
        section = self._section
        options: dict[str, Any] = {"servers": list(section.servers)}
        for key, value in (("user", section.username), ("password", section.password), ("token", section.token)):
            if value is not None:
                options[key] = value
        folder = current_place().project_dir / "config"
        if section.credentials_file is not None:
            options["user_credentials"] = str(folder / Path(section.credentials_file).expanduser())
        if section.ca_file is not None or any(server.startswith("tls://") for server in section.servers):
            mqtt = require("fieldstation.kit.mqtt", extra="station", feature="TLS")
            ca = folder / Path(section.ca_file).expanduser() if section.ca_file is not None else None
            options["tls"] = mqtt.tls_context(ca)
        return options

    async def _ensure_stream(self) -> None:
        api = self._nats.js.api
        wanted = api.StreamConfig(
            name=self._section.stream,
            subjects=[f"{self._section.subject_prefix}.>"],
            retention=api.RetentionPolicy.LIMITS,
            duplicate_window=float(self._section.duplicate_window_s),
        )
        try:
            await self._js.stream_info(self._section.stream)
        except self._nats.js.errors.NotFoundError:
            with contextlib.suppress(self._nats.js.errors.BadRequestError):  # another station made it meanwhile
                await self._js.add_stream(wanted)

    async def _tell_status(self, question: Any) -> None:
        found = await asyncio.to_thread(told_by, current_place().data_dir)
        with contextlib.suppress(self._nats.errors.Error):  # who asked has gone
            await question.respond(json.dumps(found or {"ok": False, "problems": ["it does not tell"]}).encode())

    async def _hear(self, subscription: Any) -> None:
        async for message in subscription.messages:
            try:
                config = parse_json(message.data)
            except StationConfigError as error:
                await asyncio.to_thread(hand_over_unreadable, str(error))
                continue
            await asyncio.to_thread(hand_over, config)
