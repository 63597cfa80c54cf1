"""What the MQTT client is told and what it hands out: settings, messages, errors, topic rules. Touches no network."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fieldstation.core.errors import ConfigError, FieldstationError
from fieldstation.core.retry import Backoff
from fieldstation.kit.environment import load_env

QoS = Literal[0, 1, 2]
Version = Literal["3.1.1", "5"]

MAX_TOPIC_BYTES = 65_535  # MQTT 3.1.1, section 1.5.3: a string carries a two-byte length


class MqttError(FieldstationError):
    """The MQTT connection failed: {problem}."""


class MqttConnectError(MqttError):
    """The MQTT broker {host}:{port} cannot be reached: {problem}. Check the address, the port and the network."""


class MqttTlsError(MqttConnectError):
    """The TLS handshake with the MQTT broker {host}:{port} failed: {problem}.
    Check the CA file, this machine's clock and the broker's certificate."""


class MqttRefusedError(MqttConnectError):
    """The MQTT broker {host}:{port} refused this client: {problem}. Check user, password, certificate and client id."""


class MqttLostError(MqttError):
    """The line to the MQTT broker {host}:{port} broke before the answer came: {problem}."""


class MqttTimeoutError(MqttError, TimeoutError):
    """The MQTT broker did not acknowledge {what} within {timeout_s} s; it may or may not have arrived."""


class MqttPublishRefusedError(MqttError):
    """The MQTT broker refused the message to {topic!s}: {problem}."""


class MqttSubscribeRefusedError(MqttError):
    """The MQTT broker refused the subscription to {topic!s}: {problem}."""


class MqttTopicError(MqttError, ValueError):
    """{topic} is not a valid MQTT topic {kind}: {problem}."""


class MqttFileError(MqttError):
    """The {what} file {path} cannot be used: {problem}."""


@dataclass(frozen=True, slots=True)
class Message:
    """One MQTT message, received or (as a last will or birth) to be sent. The last four fields need MQTT 5."""

    topic: str
    payload: bytes = b""
    qos: QoS = 0
    retain: bool = False
    user_properties: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None

    @property
    def text(self) -> str:
        """The payload as UTF-8; bytes that are none become U+FFFD."""
        return self.payload.decode("utf-8", "replace")

    def json(self) -> Any:
        """The payload parsed as JSON; raises ValueError when it is none."""
        return json.loads(self.payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """Where the broker is and how to talk to it. Building one opens nothing."""

    host: str = "127.0.0.1"
    port: int | None = None  # 8883 with TLS, else 1883
    client_id: str = ""  # empty: the broker invents one; a persistent session needs a name
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    version: Version = "3.1.1"
    keepalive_s: int = 30
    clean_session: bool = True  # False: the broker keeps subscriptions and waiting messages for us
    session_expiry_s: int = 7 * 24 * 3600  # MQTT 5 with clean_session False: how long it keeps them
    will: Message | None = None  # what the broker says for us when we vanish
    birth: Message | None = None  # what we say after every connect
    connect_timeout_s: float = 10.0
    ack_timeout_s: float = 30.0
    # Acknowledgements awaited at once. mosquitto loses or refuses more than 20 from an MQTT 3.1.1 client; an MQTT 5
    # broker says how many it takes, and that is kept.
    max_inflight: int = 20
    max_waiting: int = 10_000  # QoS 0 messages that wait for a slow handler; older ones are dropped and counted
    backoff: Backoff = field(default_factory=lambda: Backoff(initial_s=0.5, ceiling_s=60.0))

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError(key="host", source="the MQTT settings", problem="it is empty")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ConfigError(key="port", source="the MQTT settings", problem=f"{self.port} is not within 1 to 65535")
        if not self.clean_session and not self.client_id:
            raise ConfigError(
                key="client_id", source="the MQTT settings", problem="a session that is kept needs a name"
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, with the default port filled in."""
        return self.host, self.port if self.port is not None else (1883 if self.tls is None else 8883)


def settings_from_environment(environ: Mapping[str, str] | None = None, **overrides: Any) -> MqttSettings:
    """Return settings from MQTT_BROKER and MQTT_PORT (MQTT_USERNAME, MQTT_PASSWORD, MQTT_CA too); overrides win."""
    if environ is None:
        load_env()
        environ = os.environ
    found: dict[str, Any] = {}
    for variable, name in (("MQTT_BROKER", "host"), ("MQTT_USERNAME", "username"), ("MQTT_PASSWORD", "password")):
        if environ.get(variable):
            found[name] = environ[variable]
    if port := environ.get("MQTT_PORT"):
        if not (port.isascii() and port.isdigit()):
            raise ConfigError(key="MQTT_PORT", source="the environment", problem=f"{port!r} is not a port number")
        found["port"] = int(port)
    if environ.get("MQTT_CA") and "tls" not in overrides:
        found["tls"] = tls_context(ca=Path(environ["MQTT_CA"]))
    return MqttSettings(**found | overrides)


def tls_context(
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    *,
    alpn: str | None = None,
) -> ssl.SSLContext:
    """Return a TLS 1.2+ client context; a file that is missing or broken is named. `alpn` offers one protocol."""
    for what, path in (("CA", ca), ("certificate", certificate), ("private key", key)):
        if path is not None and not path.is_file():
            raise MqttFileError(what=what, path=path, problem="there is no such file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        raise MqttFileError(what="CA", path=ca, problem=error) from error
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            raise MqttFileError(what="certificate or key", path=f"{certificate} / {key}", problem=error) from error
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context


def check_topic(topic: str) -> str:
    """Return `topic` when a message may be sent to it, else raise MqttTopicError."""
    problem = _problem(topic)
    if problem is None and ("+" in topic or "#" in topic):
        problem = "a message goes to one topic, without + or #"
    if problem is not None:
        raise MqttTopicError(topic=repr(topic), kind="name", problem=problem)
    return topic


def check_filter(pattern: str) -> str:
    """Return `pattern` when it may be subscribed to (`+` one whole level, `#` the rest), else raise MqttTopicError."""
    problem = _problem(pattern)
    levels = pattern.split("/")
    if problem is None and any(
        "#" in level and (level != "#" or i != len(levels) - 1) for i, level in enumerate(levels)
    ):
        problem = "# stands alone and at the end"
    if problem is None and any("+" in level and level != "+" for level in levels):
        problem = "+ stands for one whole level"
    if problem is not None:
        raise MqttTopicError(topic=repr(pattern), kind="filter", problem=problem)
    return pattern


def _problem(topic: str) -> str | None:
    if not topic:
        return "it is empty"
    if "\0" in topic:
        return "it holds a NUL character"
    if len(topic.encode("utf-8", "surrogatepass")) > MAX_TOPIC_BYTES:
        return f"it is longer than {MAX_TOPIC_BYTES} bytes"
    return None


def topic_matches(pattern: str, topic: str) -> bool:
    """True when a message to `topic` belongs to the subscription `pattern`.

    Rules of MQTT 3.1.1, section 4.7: `#` also matches its parent level, and a leading wildcard does not see `$...`.
    """
    if pattern.startswith("$share/"):
        pattern = pattern.split("/", 2)[2]
    wanted, found = pattern.split("/"), topic.split("/")
    if found[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(found) or level not in ("+", found[index]):
            return False
    return len(wanted) == len(found)
