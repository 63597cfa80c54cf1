"""Device shadows of AWS IoT, classic and named: get, update, delete, and the difference to what is desired."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fieldstation.kit.aws_requests import AwsRejectedError, AwsRequests
from fieldstation.kit.mqtt import Message, MqttClient

Delta = Callable[[dict[str, Any], int], Awaitable[None] | None]


class Shadow:
    """The shadow of one thing; `name` makes it a named one. Documents are as AWS defines them."""

    def __init__(self, mqtt: MqttClient, thing: str, name: str | None = None, *, timeout_s: float = 10.0) -> None:
        self._mqtt = mqtt
        self._requests = AwsRequests(mqtt, timeout_s)
        self.topic = f"$aws/things/{thing}/shadow" + (f"/name/{name}" if name else "")

    async def get(self) -> dict[str, Any] | None:
        """Return the document (`state`, `metadata`, `version`, `timestamp`), None when there is none yet."""
        try:
            return await self._requests.ask(f"{self.topic}/get", {})
        except AwsRejectedError as error:
            if error.fields["aws_code"] == 404:
                return None
            raise

    async def update(
        self,
        *,
        reported: dict[str, Any] | None = None,
        desired: dict[str, Any] | None = None,
        version: int | None = None,
    ) -> dict[str, Any]:
        """Merge into the shadow (None as a value deletes it); with `version` only if that is still current."""
        state = {key: value for key, value in (("reported", reported), ("desired", desired)) if value is not None}
        return await self._requests.ask(
            f"{self.topic}/update", {"state": state} | ({"version": version} if version is not None else {})
        )

    async def delete(self) -> dict[str, Any]:
        """Delete the shadow; its version goes on counting, as AWS does it."""
        return await self._requests.ask(f"{self.topic}/delete", {})

    async def on_delta(self, callback: Delta) -> None:
        """Call `callback(difference, version)` whenever desired and reported differ after an update."""

        async def heard(message: Message) -> None:
            body = message.json()
            result = callback(body["state"], body["version"])
            if result is not None:
                await result

        await self._mqtt.subscribe(f"{self.topic}/update/delta", heard, qos=1)
