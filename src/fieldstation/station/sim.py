"""A simulated server for tests and the demo: speaks ThingsBoard's and Tenta's side on any broker, records, checks."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fieldstation.kit.mqtt import Message, MqttClient, MqttSettings

_TENTA_KEY = re.compile(r"[a-z0-9](_?[a-z0-9])*", re.ASCII)


@dataclass(slots=True)
class Recorded:
    """What arrived. `problems` are the messages that the true server would refuse."""

    data: list[dict[str, Any]] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class SimServer:
    """One of the two servers, as one client of a broker. Use `serve`."""

    def __init__(self, client: MqttClient, flavour: str) -> None:
        self.recorded = Recorded()
        self._client = client
        self._flavour = flavour
        self._config: dict[str, Any] | None = None
        self._changed = asyncio.Event()

    async def push_config(self, config: dict[str, Any], station: str = "") -> None:
        """Send a config as the server does: a shared attribute, or a retained message with its revision."""
        self._config = config
        if self._flavour == "thingsboard":
            await self._client.publish_json("v1/devices/me/attributes", {"configuration": config}, 1)
        else:
            revision = config.get("general", {}).get("config_revision", 0)
            message = {"revision": revision, "configuration": config}
            await self._client.publish_json(f"configurations/{station}", message, 1, retain=True)

    def set_config(self, config: dict[str, Any]) -> None:
        """Change the shared attribute without telling: the station learns of it when it asks."""
        self._config = config

    async def wait_for(self, condition: Any, timeout_s: float = 10.0) -> None:
        """Wait until `condition(recorded)` holds."""
        async with asyncio.timeout(timeout_s):
            while not condition(self.recorded):
                self._changed.clear()
                await self._changed.wait()

    async def heard(self, message: Message) -> None:
        """Record one message."""
        try:
            if self._flavour == "thingsboard":
                await self._thingsboard(message)
            else:
                self._tenta(message)
        except (ValueError, KeyError, TypeError) as error:
            self.recorded.problems.append(f"{message.topic}: {error!r}")
        self._changed.set()

    async def _thingsboard(self, message: Message) -> None:
        if message.topic.startswith("v1/devices/me/attributes/request/"):
            number = message.topic.rpartition("/")[2]
            if message.json() != {"sharedKeys": "configuration"}:
                raise ValueError("an unknown request")
            shared = {"configuration": self._config} if self._config else {}
            await self._client.publish_json(f"v1/devices/me/attributes/response/{number}", {"shared": shared}, 1)
            return
        entry = message.json()
        if not isinstance(entry["ts"], int) or not isinstance(entry["values"], dict):
            raise ValueError("no telemetry")
        values = entry["values"]
        if "logging" in values:
            self.recorded.logs.append({"ts": entry["ts"], **values["logging"]})
        elif "configuration" in values:
            self.recorded.answers.append({"ts": entry["ts"], **values["configuration"]})
        else:
            self.recorded.data.append(entry)

    def _tenta(self, message: Message) -> None:
        kind = message.topic.partition("/")[0]
        elements = message.json()
        if not isinstance(elements, list) or not elements:
            raise ValueError("no array, or an empty one")
        for element in elements:
            if not 0 <= element["timestamp"] < 2**31 or not 0 <= element.get("revision", 0) < 2**31:
                raise ValueError("a number out of range")
            if kind == "measurements":
                _check(element, {"value", "revision", "timestamp"})
                value = element["value"]
                if not value or not all(
                    _TENTA_KEY.fullmatch(k) and isinstance(v, (int, float)) for k, v in value.items()
                ):
                    raise ValueError("an empty value, or one that is no number")
                self.recorded.data.append(element)
            elif kind == "logs":
                _check(element, {"severity", "message", "revision", "timestamp"})
                if element["severity"] not in ("info", "warning", "error"):
                    raise ValueError("an unknown severity")
                self.recorded.logs.append(element)
            else:
                _check(element, {"revision", "success", "timestamp"})
                self.recorded.answers.append(element)


def _check(element: dict[str, Any], known: set[str]) -> None:
    if unknown := set(element) - known:
        raise ValueError(f"unknown fields {sorted(unknown)}")


@asynccontextmanager
async def serve(port: int, flavour: str, host: str = "127.0.0.1") -> AsyncIterator[SimServer]:
    """Serve as `thingsboard` or `tenta` on the broker at `port` while the block runs."""
    client = MqttClient(MqttSettings(host=host, port=port, client_id=f"sim-{flavour}-server"))
    server = SimServer(client, flavour)
    topics = {
        "thingsboard": ("v1/devices/me/telemetry", "v1/devices/me/attributes/request/+"),
        "tenta": ("measurements/+", "logs/+", "acknowledgments/+"),
    }[flavour]
    for topic in topics:
        client.on(topic, qos=1)(server.heard)
    async with client:
        yield server


def as_json(recorded: Recorded) -> str:
    """Return what was recorded, for a look at it."""
    return json.dumps({"data": recorded.data, "logs": recorded.logs, "answers": recorded.answers}, indent=1)
