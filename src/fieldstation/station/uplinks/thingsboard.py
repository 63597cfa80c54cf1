"""ThingsBoard's MQTT device API. Format: https://thingsboard.io/docs/reference/mqtt-api/."""

from __future__ import annotations

import json
import time
from typing import Any

from fieldstation.station.config import Config
from fieldstation.station.errors import PoisonMessageError, StationConfigError
from fieldstation.station.intake import hand_over, hand_over_unreadable, parse_json
from fieldstation.station.store import QueueRow
from fieldstation.station.uplinks.mqtt_uplink import MqttUplink, Parcel

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
RESPONSES = "v1/devices/me/attributes/response/+"


class ThingsboardUplink(MqttUplink):
    """Readings, logs and config answers as telemetry; configs are the shared attribute `configuration`."""

    def __init__(self, config: Config, name: str) -> None:
        connection = config.all_uplinks()[name].mqtt_connection
        self.needs_tls = connection is not None and connection.host.endswith("thingsboard.cloud")
        super().__init__(config, name)

    def subscriptions(self) -> tuple[str, str]:
        """Return the topics of changed attributes and of the answers to our request."""
        return ATTRIBUTES, RESPONSES

    async def greet(self) -> None:
        """Ask for the config: an attribute that changed while we were away is not sent by itself."""
        await self.ask(f"v1/devices/me/attributes/request/{int(time.time() * 1000)}", b'{"sharedKeys":"configuration"}')

    def hear(self, topic: str, payload: bytes) -> None:
        """Take in a config; other attributes and `deleted` are not for us."""
        try:
            message = parse_json(payload)
        except StationConfigError as error:
            hand_over_unreadable(str(error))
            return
        config = config_in(message)
        if config is not None:
            hand_over(config)

    def encode(self, row: QueueRow) -> Parcel:
        """Return the row as telemetry of the time at which it was measured."""
        return Parcel(TELEMETRY, telemetry(row), row.seq)


def config_in(message: Any) -> Any | None:
    """Return the config of an attribute message, or None when it holds none."""
    if not isinstance(message, dict):
        return None
    shared = message.get("shared")
    return message.get("configuration", shared.get("configuration") if isinstance(shared, dict) else None)


def telemetry(row: QueueRow) -> bytes:
    """Return `{"ts": milliseconds, "values": {...}}`."""
    try:
        body = json.loads(row.body)
        match body["variant"]:
            case "data":
                values = body["data"]
            case "log":
                values = {"logging": {key: body[key] for key in ("level", "subject", "body")}}
            case _:
                # The whole body once more under `config`: what today's dashboards read.
                values = {"configuration": {"status": body["status"], "config": body}}
        return json.dumps({"ts": int(row.timestamp * 1000), "values": values}, allow_nan=False).encode()
    except (ValueError, KeyError, TypeError) as error:
        raise PoisonMessageError(identifier=row.seq, problem=f"its body is not understood ({error!r})") from error
