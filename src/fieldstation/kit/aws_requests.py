"""Ask AWS IoT over its reserved topics: publish a request, get `accepted` or `rejected` back by client token."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.kit.mqtt import Message, MqttClient


class AwsRejectedError(FieldstationError):
    """AWS IoT refused {topic}: {problem} (code {aws_code})."""


class AwsTimeoutError(FieldstationError, TimeoutError):
    """AWS IoT did not answer to {topic} within {timeout_s} s. Does the policy allow this topic and its answers?"""


class AwsRequests:
    """One per connection. The answers' topics are subscribed to at the first request and stay so."""

    def __init__(self, mqtt: MqttClient, timeout_s: float = 10.0) -> None:
        self._mqtt = mqtt
        self._timeout_s = timeout_s
        self._waiting: dict[tuple[str, str], asyncio.Future[dict[str, Any]]] = {}
        self._subscribed: set[str] = set()
        self._lock = asyncio.Lock()

    async def ask(self, topic: str, payload: dict[str, Any], *, with_token: bool = True) -> dict[str, Any]:
        """Publish to `topic` and return what comes on `topic/accepted`; `topic/rejected` is AwsRejectedError.

        Fleet provisioning has no client tokens: `with_token=False` takes the next answer for ours.
        """
        token = secrets.token_hex(12) if with_token else ""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        await self._listen(topic)
        self._waiting[topic, token] = answer
        try:
            async with asyncio.timeout(self._timeout_s):
                body = payload | ({"clientToken": token} if token else {})
                await self._mqtt.publish(topic, json.dumps(body), 1, timeout_s=self._timeout_s)
                return await answer
        except TimeoutError as error:
            raise AwsTimeoutError(topic=topic, timeout_s=f"{self._timeout_s:g}") from error
        finally:
            self._waiting.pop((topic, token), None)

    async def _listen(self, topic: str) -> None:
        async with self._lock:
            for word in ("accepted", "rejected"):
                if f"{topic}/{word}" not in self._subscribed:
                    await self._mqtt.subscribe(f"{topic}/{word}", self._heard, qos=1)
                    self._subscribed.add(f"{topic}/{word}")

    async def _heard(self, message: Message) -> None:
        topic, _, word = message.topic.rpartition("/")
        try:
            body = message.json()
        except ValueError:
            return
        if not isinstance(body, dict):
            return
        waiting = self._waiting.get((topic, str(body.get("clientToken", ""))))
        if waiting is None or waiting.done():
            return
        if word == "accepted":
            waiting.set_result(body)
            return
        code = body.get("code", body.get("errorCode", "?"))
        problem = body.get("message", body.get("errorMessage", "no reason given"))
        waiting.set_exception(AwsRejectedError(topic=topic, problem=problem, aws_code=code))
