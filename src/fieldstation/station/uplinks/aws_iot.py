"""AWS IoT Core: MQTT over mutual TLS, plain topics under a prefix.

Limits are those of https://docs.aws.amazon.com/general/latest/gr/iot-core.html: 128 KiB a message, 8 topic levels.
"""

from __future__ import annotations

import json

from fieldstation.station.config import Config
from fieldstation.station.errors import PoisonMessageError, StationConfigError
from fieldstation.station.intake import hand_over, hand_over_unreadable, parse_json
from fieldstation.station.store import QueueRow
from fieldstation.station.uplinks.mqtt_uplink import MqttUplink, Parcel

MAX_PAYLOAD = 128 * 1024
KIND = {"data": "data", "log": "log", "config": "answer"}


class AwsIotUplink(MqttUplink):
    """`<prefix>/<station>/data|log|answer` out, `<prefix>/<station>/config` in; the broker keeps the session."""

    needs_tls = True
    clean_session = False  # AWS keeps what was sent while we were away, for an hour by default

    def __init__(self, config: Config, name: str) -> None:
        section = config.all_uplinks()[name]
        if section.topic_prefix.count("/") > 5:
            raise StationConfigError(key=f"{name}.topic_prefix", source="the config", problem="at most 6 levels")
        if section.mqtt_connection is not None and section.mqtt_connection.port == 443:
            self.alpn = "x-amzn-mqtt-ca"
        self._stem = f"{section.topic_prefix}/{config.general.system_identifier}"
        super().__init__(config, name)

    def subscriptions(self) -> tuple[str]:
        """Return the topic of configs."""
        return (f"{self._stem}/config",)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take in a config."""
        try:
            hand_over(parse_json(payload))
        except StationConfigError as error:
            hand_over_unreadable(str(error))

    def encode(self, row: QueueRow) -> Parcel:
        """Return the row with its unique id, so that readers can leave out what QoS 1 brings twice."""
        try:
            body = json.loads(row.body)
            entry = {"id": row.id, "timestamp": row.timestamp, "body": body}
            payload = json.dumps(entry, allow_nan=False).encode()
            topic = f"{self._stem}/{KIND[body['variant']]}"
        except (ValueError, KeyError, TypeError) as error:
            raise PoisonMessageError(identifier=row.seq, problem=f"its body is not understood ({error!r})") from error
        if len(payload) > MAX_PAYLOAD:
            raise PoisonMessageError(identifier=row.seq, problem=f"{len(payload)} bytes are more than AWS IoT takes")
        return Parcel(topic, payload, row.seq)
