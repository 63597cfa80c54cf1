"""Tenta's MQTT interface. Format: https://tenta.onrender.com/mqtt (topics `measurements`, `logs`, ...)."""

from __future__ import annotations

import json
import re
from typing import Any

from fieldstation.station.errors import PoisonMessageError, StationConfigError
from fieldstation.station.intake import hand_over, hand_over_unreadable, parse_json
from fieldstation.station.store import QueueRow
from fieldstation.station.uplinks.mqtt_uplink import MqttUplink, Parcel

SEVERITY = {"DEBUG": "info", "INFO": "info", "WARNING": "warning", "ERROR": "error", "EXCEPTION": "error"}
MAX_LOG_TEXT = 16_384
_KEY = re.compile(r"[a-z0-9](_?[a-z0-9])*", re.ASCII)


class TentaUplink(MqttUplink):
    """Readings, logs and acknowledgements as arrays of one; the server keeps the last config as a retained message."""

    @property
    def _station(self) -> str:
        return self.config.general.system_identifier

    def subscriptions(self) -> tuple[str]:
        """Return the topic of configs: its retained message comes with every connect."""
        return (f"configurations/{self._station}",)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take in a config under the revision that the server gave it."""
        revision = None
        try:
            message = parse_json(payload)
            if not isinstance(message, dict) or not isinstance(message.get("revision"), int):
                raise StationConfigError("The message has no `revision`.")
            revision = message["revision"]
        except StationConfigError as error:
            hand_over_unreadable(str(error), revision)
            return
        hand_over(message.get("configuration"), revision)

    def encode(self, row: QueueRow) -> Parcel | None:
        """Return the row with the time at which it was measured; None for what Tenta has no place for."""
        try:
            encoded = element(row, self.config.general.config_revision if row.revision is None else row.revision)
        except (ValueError, KeyError, TypeError) as error:
            raise PoisonMessageError(identifier=row.seq, problem=f"its body is not understood ({error!r})") from error
        if encoded is None:
            return None
        topic, value = encoded
        return Parcel(f"{topic}/{self._station}", json.dumps([value], allow_nan=False).encode(), row.seq)


def element(row: QueueRow, revision: int) -> tuple[str, dict[str, Any]] | None:
    """Return (first part of the topic, array element), or None when the server would refuse the empty rest."""
    body = json.loads(row.body)
    # The server refuses a negative revision; a station that never got a config leaves it out.
    stamp = ({"revision": revision} if revision >= 0 else {}) | {"timestamp": row.timestamp}
    match body["variant"]:
        case "data":
            numbers = {k: v for k, v in body["data"].items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
            if not numbers:
                return None
            for key in numbers:
                if len(key) > 64 or _KEY.fullmatch(key) is None:
                    raise ValueError(f"the key {key!r} is not one that the server takes")
            return "measurements", {"value": numbers, **stamp}
        case "log":
            text = f"{body['subject']}\n\n{body['body']}"[:MAX_LOG_TEXT]
            return "logs", {"severity": SEVERITY[body["level"]], "message": text, **stamp}
        case _:
            answered = body["config"]["general"]["config_revision"]
            if body["status"] not in ("accepted", "rejected") or answered < 0:
                return None
            return "acknowledgments", {
                "revision": answered,
                "success": body["status"] == "accepted",
                "timestamp": row.timestamp,
            }
