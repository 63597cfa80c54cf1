"""AWS IoT Core over MQTT with certificates on both sides, for plain scripts.

    if connect_aws_iot():                                   # True once AWS has accepted us
        publish_message("lab/status", {"status": "running", "temperature": 25.5})
        subscribe_topic("lab/commands", lambda topic, payload: print(topic, payload))

Settings: AWS_IOT_ENDPOINT, AWS_IOT_CLIENT_ID, AWS_IOT_CERT_PATH, AWS_IOT_KEY_PATH, AWS_IOT_CA_PATH.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fieldstation.core.blocking import portal
from fieldstation.core.errors import FieldstationError
from fieldstation.core.retry import Backoff
from fieldstation.kit.aws_jobs import Job, Jobs, Status
from fieldstation.kit.aws_shadow import Delta, Shadow
from fieldstation.kit.environment import setting
from fieldstation.kit.mqtt import Message, MqttClient, MqttError, MqttSettings, QoS, tls_context

Callback = Callable[[str, Any], object]

MAX_PAYLOAD_BYTES = 128 * 1024  # these limits are AWS's own; it closes the connection when they are broken
MAX_TOPIC_BYTES = 256
MAX_SLASHES = 7
PUBLISHES_PER_S = 100
ALPN = "x-amzn-mqtt-ca"  # what makes port 443 speak MQTT


class AwsLimitError(FieldstationError):
    """AWS IoT takes no such message: {problem}."""


class AwsSettingMissingError(FieldstationError):
    """AWS IoT needs {what}: set {variable} in the environment or in .env, or pass it."""


class AWSIoTClient:
    """One connection. Methods return False and log the reason (kept in `connection_error`) instead of raising."""

    def __init__(
        self,
        endpoint: str | None = None,
        port: int = 8883,
        client_id: str | None = None,
        cert_path: str | Path | None = None,
        key_path: str | Path | None = None,
        ca_path: str | Path | None = None,
        max_retries: int = 3,
        retry_delay: float = 5,
        *,
        will: Message | None = None,
        version: str = "3.1.1",
    ) -> None:
        self.endpoint = endpoint or setting("AWS_IOT_ENDPOINT")
        self.port = port
        self.client_id = client_id or setting("AWS_IOT_CLIENT_ID", socket.gethostname())
        self.cert_path = Path(cert_path or setting("AWS_IOT_CERT_PATH", "cert.pem"))
        self.key_path = Path(key_path or setting("AWS_IOT_KEY_PATH", "private.key"))
        self.ca_path = Path(ca_path or setting("AWS_IOT_CA_PATH", "root-CA.crt"))
        self.max_retries = max_retries
        self.retry_delay = retry_delay
        self.connection_error: str | None = None
        self.message_handlers: dict[str, list[Callback]] = {}
        self.logger = logging.getLogger("aws_iot")
        self.client: MqttClient | None = None
        self._will = will
        self._version = version
        self._sent: deque[float] = deque(maxlen=PUBLISHES_PER_S)
        self._pacing = threading.Lock()

    @property
    def connected(self) -> bool:
        """True while AWS has accepted us and the line stands."""
        return self.client is not None and self.client.connected

    def _settings(self) -> MqttSettings:
        if not self.endpoint:
            raise AwsSettingMissingError(what="the address of your endpoint", variable="AWS_IOT_ENDPOINT")
        alpn = ALPN if self.port == 443 else None
        return MqttSettings(
            host=self.endpoint,
            port=self.port,
            client_id=self.client_id,
            tls=tls_context(self.ca_path, self.cert_path, self.key_path, alpn=alpn),
            version="5" if self._version == "5" else "3.1.1",
            keepalive_s=60,
            will=self._will,
            ack_timeout_s=10.0,
            backoff=Backoff(initial_s=self.retry_delay, ceiling_s=max(60.0, self.retry_delay)),
        )

    def connect(self) -> bool:
        """Connect and wait until AWS accepts or refuses us; from then on it reconnects by itself."""
        if self.connected:
            return True
        self.disconnect()
        self.connection_error = None
        try:
            settings = self._settings()
            client = MqttClient(settings)
            for topic in self.message_handlers:
                portal.call(client.subscribe(topic, self._hear(topic), 1))
            portal.call(client.start())
            self.client = client
            portal.call(client.wait_connected(settings.connect_timeout_s + self.max_retries * self.retry_delay))
        except FieldstationError as error:
            self._failed(error)
            self.disconnect()
            self.connection_error = str(error)
            return False
        self.logger.info("connected to %s as %s", self.endpoint, self.client_id)
        return True

    def disconnect(self) -> None:
        """Leave; a later `connect` starts anew, with the same subscriptions."""
        client, self.client = self.client, None
        if client is not None:
            portal.call(client.stop())

    def publish(self, topic: str, message: Any, qos: int = 0) -> bool:
        """Send text and bytes as they are, anything else as JSON; True when AWS has acknowledged it (QoS 1)."""
        if self.client is None:
            self._failed(MqttError(problem="not connected; call connect() first"))
            return False
        try:
            data = message if isinstance(message, bytes | str) else json.dumps(message, allow_nan=False)
            payload = data.encode() if isinstance(data, str) else data
            check_limits(topic, len(payload), qos)
            self._pace()
            portal.call(self.client.publish(topic, payload, _qos(qos)))
        except (FieldstationError, TypeError, ValueError) as error:
            self._failed(error)
            return False
        return True

    def subscribe(self, topic: str, callback: Callback, qos: int = 0) -> bool:
        """Call `callback(topic, payload)` for each message; wildcards work, and several callbacks per topic.

        The payload is parsed as JSON when it is JSON, else it is text, else bytes. Callbacks run in a thread.
        """
        if self.client is None:
            self._failed(MqttError(problem="not connected; call connect() first"))
            return False
        first = topic not in self.message_handlers
        self.message_handlers.setdefault(topic, []).append(callback)
        try:
            if first:
                check_limits(topic, 0, qos)
                portal.call(self.client.subscribe(topic, self._hear(topic), _qos(qos)))
        except FieldstationError as error:
            self.message_handlers.pop(topic, None)
            self._failed(error)
            return False
        return True

    def shadow(self, name: str | None = None, thing: str | None = None) -> BlockingShadow:
        """Return the shadow of this thing (its name is the client id unless given)."""
        return BlockingShadow(Shadow(self._required(), thing or self.client_id, name))

    def jobs(self, thing: str | None = None) -> BlockingJobs:
        """Return the jobs of this thing."""
        return BlockingJobs(Jobs(self._required(), thing or self.client_id))

    def _required(self) -> MqttClient:
        if self.client is None:
            raise MqttError(problem="not connected; call connect() first")
        return self.client

    def _hear(self, topic: str) -> Callable[[Message], None]:
        def hear(message: Message) -> None:
            for callback in tuple(self.message_handlers.get(topic, ())):
                try:
                    callback(message.topic, parse(message.payload))
                except Exception:
                    self.logger.exception("a callback failed on a message to %s", message.topic)

        return hear

    def _pace(self) -> None:
        # AWS throttles a connection above 100 publishes a second: spread them instead of losing them.
        with self._pacing:
            now = time.monotonic()
            if len(self._sent) == PUBLISHES_PER_S and (wait := self._sent[0] + 1.0 - now) > 0:
                time.sleep(wait)
            self._sent.append(time.monotonic())

    def _failed(self, error: BaseException) -> None:
        self.connection_error = str(error)
        self.logger.error("%s", error)


class BlockingShadow:
    """A Shadow for plain scripts; see `Shadow`."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow

    def get(self) -> dict[str, Any] | None:
        """As Shadow.get."""
        return portal.call(self._shadow.get())

    def update(self, **state: Any) -> dict[str, Any]:
        """As Shadow.update: reported=, desired=, version=."""
        return portal.call(self._shadow.update(**state))

    def delete(self) -> dict[str, Any]:
        """As Shadow.delete."""
        return portal.call(self._shadow.delete())

    def on_delta(self, callback: Delta) -> None:
        """As Shadow.on_delta; the callback must not block."""
        portal.call(self._shadow.on_delta(callback))


class BlockingJobs:
    """Jobs for plain scripts; see `Jobs`."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def pending(self) -> list[str]:
        """As Jobs.pending."""
        return portal.call(self._jobs.pending())

    def start_next(self) -> Job | None:
        """As Jobs.start_next."""
        return portal.call(self._jobs.start_next())

    def update(self, job: Job, status: Status, **details: str) -> None:
        """As Jobs.update."""
        portal.call(self._jobs.update(job, status, **details))


def check_limits(topic: str, size: int, qos: int) -> None:
    """Raise AwsLimitError for what AWS would answer by closing the connection."""
    if size > MAX_PAYLOAD_BYTES:
        raise AwsLimitError(problem=f"its payload has {size} bytes, the limit is {MAX_PAYLOAD_BYTES}")
    if len(topic.encode()) > MAX_TOPIC_BYTES or topic.count("/") > MAX_SLASHES:
        raise AwsLimitError(problem=f"a topic has at most {MAX_SLASHES} slashes and {MAX_TOPIC_BYTES} bytes")
    if qos not in (0, 1):
        raise AwsLimitError(problem=f"QoS {qos} is not supported, only 0 and 1")


def _qos(qos: int) -> QoS:
    return 1 if qos else 0


def parse(payload: bytes) -> Any:
    """Return JSON when it is JSON, else text, else the bytes."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return payload
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


_default: AWSIoTClient | None = None
_default_lock = threading.Lock()


def connect_aws_iot(**settings: Any) -> bool:
    """Connect with the settings of the environment (arguments of AWSIoTClient win); True once AWS has accepted us."""
    global _default
    with _default_lock:
        if _default is None or settings or not _default.connected:
            # A new client reads the environment as it is now, and keeps what was subscribed to.
            before, _default = _default, AWSIoTClient(**settings)
            if before is not None:
                before.disconnect()
                _default.message_handlers = before.message_handlers
        return _default.connect()


def disconnect_aws_iot() -> None:
    """Close the connection that `connect_aws_iot` opened; nothing happens when there is none."""
    if _default is not None:
        _default.disconnect()


def publish_message(topic: str, message: Any, qos: int = 0) -> bool:
    """Publish through the client that `connect_aws_iot` made; arguments and errors are AWSIoTClient.publish's."""
    return _shared().publish(topic, message, qos)


def subscribe_topic(topic: str, callback: Callback, qos: int = 0) -> bool:
    """Call `callback(topic, payload)` for each message, as AWSIoTClient.subscribe, on `connect_aws_iot`'s client."""
    return _shared().subscribe(topic, callback, qos)


def _shared() -> AWSIoTClient:
    global _default
    with _default_lock:
        if _default is None:
            _default = AWSIoTClient()
        return _default
