"""`fieldstation kit mqtt`: publish and subscribe from the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fieldstation.kit.mqtt_model import Message, MqttSettings

FILE = click.Path(path_type=Path)


@click.group()
def mqtt() -> None:
    """Publish and subscribe. The broker is MQTT_BROKER and MQTT_PORT unless named; the password is MQTT_PASSWORD."""


def _broker(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--key", type=FILE, help="PEM key of the certificate."),
        click.option("--certificate", type=FILE, help="PEM certificate of this client."),
        click.option("--ca", type=FILE, help="CA of the broker's certificate; turns TLS on."),
        click.option("--tls", is_flag=True, help="Use TLS, with the system's CAs unless --ca is given."),
        click.option("--mqtt5", is_flag=True, help="Speak MQTT 5 instead of 3.1.1."),
        click.option("--client-id", default="", help="Name of this client at the broker."),
        click.option("--username", help="User at the broker.  [default: MQTT_USERNAME]"),
        click.option("--port", type=click.IntRange(1, 65535), help="TCP port.  [default: MQTT_PORT, 1883, TLS 8883]"),
        click.option("--host", help="Address of the broker.  [default: MQTT_BROKER, 127.0.0.1]"),
    ):
        command = option(command)
    return command


def _settings(
    host: str | None,
    port: int | None,
    username: str | None,
    client_id: str,
    mqtt5: bool,
    tls: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    **more: Any,
) -> MqttSettings:
    from fieldstation.kit.mqtt_model import settings_from_environment, tls_context

    given: dict[str, Any] = {"host": host, "port": port, "username": username}
    given = {name: value for name, value in given.items() if value is not None}
    if tls or ca is not None or certificate is not None:
        given["tls"] = tls_context(ca, certificate, key)
    return settings_from_environment(**given, client_id=client_id, version="5" if mqtt5 else "3.1.1", **more)


@mqtt.command()
@click.argument("topic")
@click.argument("payload")
@click.option("--qos", type=click.IntRange(0, 2), default=1, show_default=True, help="0, 1 or 2.")
@click.option("--retain", is_flag=True, help="The broker keeps it for later subscribers.")
@click.option("--timeout", "timeout_s", type=float, default=10.0, show_default=True, help="Seconds to try.")
@click.option("--outbox", type=FILE, help="Keep it in this file until the broker has it, also beyond this command.")
@_broker
def publish(
    topic: str, payload: str, qos: int, retain: bool, timeout_s: float, outbox: Path | None, **broker: Any
) -> None:
    """Send PAYLOAD to TOPIC and end when the broker has acknowledged it."""
    from fieldstation.kit.mqtt import MqttClient
    from fieldstation.kit.mqtt_model import check_topic
    from fieldstation.kit.mqtt_outbox import MqttOutbox

    level: Any = qos
    check_topic(topic)
    settings = _settings(**broker, connect_timeout_s=min(timeout_s, 10.0))

    async def send() -> str:
        if outbox is None:
            async with MqttClient(settings) as client:
                await client.publish(topic, payload, level, retain, timeout_s=timeout_s)
            return "acknowledged"
        async with MqttOutbox(MqttClient(settings), outbox) as box:
            await box.publish(topic, payload, level, retain)
            try:
                await box.flush(timeout_s)
            except TimeoutError:
                return f"kept in {outbox}, where {box.waiting} wait for the broker; give the command again later"
        return "acknowledged"

    click.echo(asyncio.run(send()))


@mqtt.command()
@click.argument("pattern")
@click.option("--qos", type=click.IntRange(0, 2), default=1, show_default=True, help="0, 1 or 2.")
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per message.")
@_broker
def subscribe(pattern: str, qos: int, count: int | None, as_json: bool, **broker: Any) -> None:
    """Print the messages to PATTERN (wildcards + and #) until it is stopped."""
    from fieldstation.kit.mqtt import MqttClient

    level: Any = qos
    settings = _settings(**broker)

    async def listen() -> None:
        seen = 0
        async with MqttClient(settings) as client, client.messages(pattern, level) as messages:
            click.echo("listening", err=True)
            async for message in messages:
                click.echo(_line(message, as_json))
                seen += 1
                if seen == count:
                    return

    asyncio.run(listen())


def _line(message: Message, as_json: bool) -> str:
    if not as_json:
        return f"{message.topic} {message.text}"
    try:
        value = message.json()
    except ValueError:
        value = message.text
    return json.dumps({"topic": message.topic, "payload": value, "qos": message.qos, "retain": message.retain})
