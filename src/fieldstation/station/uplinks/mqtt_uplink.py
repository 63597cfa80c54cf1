"""What all uplinks over MQTT share: the connection, QoS 1, subscriptions on every connect. They differ in topics."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fieldstation.core.retry import Backoff
from fieldstation.kit.mqtt import (
    Message,
    MqttClient,
    MqttPublishRefusedError,
    MqttSettings,
    MqttTimeoutError,
    tls_context,
)
from fieldstation.station.config import BackendConfig, Config, MQTTBrokerConfig
from fieldstation.station.errors import PoisonMessageError, StationConfigError
from fieldstation.station.place import current_place
from fieldstation.station.store import QueueRow

log = logging.getLogger(__name__)

_FOR_EVER_S = 10 * 365 * 86400.0  # a message waits across any outage; its row stays owed meanwhile


class Parcel(NamedTuple):
    """What is published for one row."""

    topic: str
    payload: bytes
    seq: int


class MqttUplink(ABC):
    """An uplink over MQTT 3.1.1."""

    keepalive_s = 30
    clean_session = True
    needs_tls = False
    alpn: str | None = None

    def __init__(self, config: Config, name: str) -> None:
        self.config = config
        self.section: BackendConfig = config.all_uplinks()[name]
        connection = self.section.mqtt_connection
        if connection is None:
            raise StationConfigError(key=f"{name}.mqtt_connection", source="the config", problem="it is missing")
        self._client = MqttClient(self._settings(connection))
        for topic in self.subscriptions():
            self._client.on(topic, qos=1)(self._heard)
        self._client.on_connect(self.greet)

    def _settings(self, connection: MQTTBrokerConfig) -> MqttSettings:
        return MqttSettings(
            host=connection.host,
            port=connection.port,
            client_id=connection.client_id,
            username=connection.username,
            password=connection.password,
            tls=self._tls(connection),
            keepalive_s=self.keepalive_s,
            clean_session=self.clean_session,
            ack_timeout_s=_FOR_EVER_S,
            max_inflight=min(self.section.max_parallel_messages, MqttSettings().max_inflight),
            backoff=Backoff(initial_s=0.5, ceiling_s=60.0),
        )

    def _tls(self, connection: MQTTBrokerConfig) -> Any:
        files = [connection.ca_file, connection.certificate_file, connection.key_file]
        wanted = connection.tls if connection.tls is not None else any(files) or self.needs_tls
        if not wanted:
            return None
        folder = current_place().project_dir / "config"
        ca, certificate, key = [None if text is None else folder / Path(text).expanduser() for text in files]
        return tls_context(ca, certificate, key, alpn=self.alpn)

    @property
    def connected(self) -> bool:
        """True while the broker has accepted us."""
        return self._client.connected

    async def run(self) -> None:
        """Stay connected until cancelled."""
        await self._client.start()
        try:
            await asyncio.Event().wait()
        finally:
            await self._client.stop()

    async def send(self, parcel: Parcel) -> None:
        """Publish with QoS 1 and wait for the PUBACK."""
        try:
            await self._client.publish(parcel.topic, parcel.payload, qos=1, timeout_s=_FOR_EVER_S)
        except MqttPublishRefusedError as error:
            raise PoisonMessageError(identifier=parcel.seq, problem=error) from error

    def status(self) -> dict[str, object]:
        """Return how often the line was made, and what went wrong last.

        A station that looks for the message which its server does not take is connected: a config is not rolled back
        for it.
        """
        error = self._client.last_error
        return {
            "connected": self._client.reached,
            "connects": self._client.connects,
            "last_error": str(error) if error else None,
        }

    def _heard(self, message: Message) -> None:
        # In a thread, and acknowledged when this returns: by then the config is on the disk.
        try:
            self.hear(message.topic, message.payload)
        except Exception:
            log.exception("a message to %s was not understood", message.topic)

    async def ask(self, topic: str, payload: bytes) -> None:
        """Publish a request of ours, once."""
        try:
            await self._client.publish(topic, payload, qos=1, timeout_s=30.0)
        except MqttTimeoutError:
            log.warning("the server did not take the request to %s", topic)

    async def greet(self) -> None:  # noqa: B027 - most servers are not asked for anything
        """Do what is due after each connect."""

    @abstractmethod
    def subscriptions(self) -> Sequence[str]:
        """Return the topics to hear, subscribed with QoS 1 on every connect."""

    @abstractmethod
    def hear(self, topic: str, payload: bytes) -> None:
        """Take in what the server sent."""

    @abstractmethod
    def encode(self, row: QueueRow) -> Parcel | None:
        """Return what to publish for a row, None for nothing; PoisonMessageError when that is impossible."""
