"""What a procedure hands over to be stored and sent: data, log and config messages."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from fieldstation.station.config import ForeignConfig
from fieldstation.station.constants import LogLevel
from fieldstation.station.secrets import masked

RESERVED_KEYS = ("logging", "configuration")  # ThingsBoard's names for logs and config answers


def clean(value: Any) -> Any:
    """Return text with what cannot be UTF-8 (undecodable bytes, lone surrogates) replaced; other values as they are."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


Text = Annotated[str, pydantic.BeforeValidator(clean)]


# Built when first used: most processes only ever make readings and logs.
_LATER = pydantic.ConfigDict(defer_build=True)


class DataMessageBody(pydantic.BaseModel):
    """Readings by name. Not a number and infinity are refused: JSON has no word for them; leave the key out."""

    variant: Literal["data"] = "data"
    data: dict[Text, float | int | Text]

    @pydantic.field_validator("data", mode="before")
    @classmethod
    def _checked(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key, value in data.items():
                if key in RESERVED_KEYS:
                    raise ValueError(f"the key {key!r} is reserved")
                if isinstance(value, float) and not math.isfinite(value):
                    raise ValueError(f"the value of {key!r} is {value}; leave the key out when there is no reading")
        return data


class LogMessageBody(pydantic.BaseModel):
    """One log entry: its subject line and the detail blocks."""

    model_config = _LATER

    variant: Literal["log"] = "log"
    level: LogLevel
    subject: Text
    body: Text


class ConfigMessageBody(pydantic.BaseModel):
    """What became of a config. Secrets in it are masked when the message is made."""

    model_config = _LATER

    variant: Literal["config"] = "config"
    status: Literal["received", "accepted", "rejected", "startup"]
    config: ForeignConfig
    reason: Text | None = Field(default=None, description="Why, when it was rejected.")

    @pydantic.field_validator("config", mode="before")
    @classmethod
    def _mask(cls, config: Any) -> Any:
        return masked(config.model_dump(mode="json") if isinstance(config, pydantic.BaseModel) else config)

    @pydantic.model_serializer(mode="wrap")
    def _without_empty_reason(self, handler: Any) -> Any:
        data = handler(self)
        if data.get("reason") is None:
            data.pop("reason", None)
        return data


MessageBody = DataMessageBody | LogMessageBody | ConfigMessageBody


class MessageArchiveItem(pydantic.BaseModel):
    """A message as it was stored; `timestamp` is in Unix seconds."""

    model_config = _LATER

    timestamp: float
    message_body: Annotated[MessageBody, Field(discriminator="variant")]


class MessageQueueItem(MessageArchiveItem):
    """A message that is still owed to the uplink; `identifier` is its number in the store."""

    identifier: int
