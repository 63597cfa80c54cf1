"""The MQTT client for plain scripts: the same client on a loop in the background, one line per method.

with BlockingMqttClient(MqttSettings(host="broker.lab"), outbox=Path("outbox.db")) as mqtt:
    mqtt.subscribe("lab/+/set", lambda message: print(message.topic, message.json()))
    mqtt.publish_json("lab/1/t", {"celsius": 21.5})
"""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fieldstation.core.blocking import portal
from fieldstation.kit.mqtt import H, MqttClient, Payload
from fieldstation.kit.mqtt_dispatch import Handler, Subscription
from fieldstation.kit.mqtt_model import MqttSettings, QoS
from fieldstation.kit.mqtt_outbox import MqttOutbox


class BlockingMqttClient:
    """Handlers run in threads of their own and may publish. With `outbox` a publish returns when it is on disk."""

    def __init__(self, settings: MqttSettings | None = None, *, outbox: Path | None = None) -> None:
        self._client = MqttClient(settings)
        self._outbox = MqttOutbox(self._client, outbox) if outbox is not None else None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, timeout_s: float | None = None) -> None:
        """Connect and wait for the broker's yes; with an outbox return at once, as it can wait."""
        portal.call(self._client.start())
        atexit.register(self.close)
        if self._outbox is not None:
            portal.call(self._outbox.__aenter__())
            return
        try:
            portal.call(self._client.wait_connected(timeout_s))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect; what the outbox holds stays on disk."""
        atexit.unregister(self.close)
        if self._outbox is not None:
            portal.call(self._outbox.__aexit__(None, None, None))
        portal.call(self._client.stop())

    @property
    def connected(self) -> bool:
        """True while the broker has accepted us and the line stands."""
        return self._client.connected

    @property
    def waiting(self) -> int:
        """How many messages of the outbox are still owed to the broker."""
        return self._outbox.waiting if self._outbox is not None else 0

    def publish(self, topic: str, payload: Payload = b"", qos: QoS = 1, retain: bool = False, **options: Any) -> None:
        """As MqttClient.publish; options only without an outbox."""
        if self._outbox is not None:
            portal.call(self._outbox.publish(topic, payload, qos, retain, **options))
        else:
            portal.call(self._client.publish(topic, payload, qos, retain, **options))

    def publish_json(self, topic: str, value: Any, qos: QoS = 1, retain: bool = False, **options: Any) -> None:
        """Send `value` as JSON."""
        self.publish(topic, json.dumps(value, allow_nan=False), qos, retain, **options)

    def subscribe(self, pattern: str, handler: Handler, qos: QoS = 1) -> Subscription:
        """As MqttClient.subscribe."""
        return portal.call(self._client.subscribe(pattern, handler, qos))

    def unsubscribe(self, subscription: Subscription) -> None:
        """As MqttClient.unsubscribe."""
        portal.call(self._client.unsubscribe(subscription))

    def on(self, pattern: str, qos: QoS = 1) -> Callable[[H], H]:
        """Decorate a handler: `@mqtt.on("lab/+/t")`, before or after connecting."""

        def decorate(handler: H) -> H:
            self.subscribe(pattern, handler, qos)
            return handler

        return decorate

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until the broker has acknowledged what the outbox holds."""
        if self._outbox is not None:
            portal.call(self._outbox.flush(timeout_s))
