"""Translate between our messages and paho's, with the properties that MQTT 5 adds."""

from __future__ import annotations

from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fieldstation.kit.mqtt_model import Message, Version


def new_properties(packet: int) -> Properties:
    """Return an empty property list for one kind of packet."""
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho's constructor has no annotations


def connect_properties(session_expiry_s: int | None) -> Properties:
    """Return the properties of a CONNECT; None ends the session with the line."""
    properties = new_properties(PacketTypes.CONNECT)
    if session_expiry_s is not None:
        properties.SessionExpiryInterval = session_expiry_s
    return properties


def properties_of(message: Message, packet: int, version: Version, expiry_s: int | None = None) -> Properties | None:
    """Return the MQTT 5 properties of `message`; None when it has none, or MQTT 3.1.1 cannot carry them."""
    wanted = {
        "UserProperty": list(message.user_properties) or None,
        "ContentType": message.content_type,
        "ResponseTopic": message.response_topic,
        "CorrelationData": message.correlation_data,
        "MessageExpiryInterval": expiry_s,
    }
    if version != "5" or all(value is None for value in wanted.values()):
        return None
    properties = new_properties(packet)
    for name, value in wanted.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def received(message: MQTTMessage) -> Message:
    """Return paho's message as ours; raises UnicodeDecodeError for a topic that is not UTF-8."""
    properties = message.properties
    return Message(
        topic=message.topic,
        payload=bytes(message.payload),
        qos=message.qos,  # type: ignore[arg-type]  # paho hands out 0, 1 or 2 as a plain int
        retain=message.retain,
        user_properties=tuple(getattr(properties, "UserProperty", ())),
        content_type=getattr(properties, "ContentType", None),
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation_data=getattr(properties, "CorrelationData", None),
    )
