"""Messages on the line between worker and control (docs/reference/fleet-wire.md), to and from the model.

Read leniently: unknown keys are ignored. Used by both ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from fieldstation.core.errors import first_problem
from fieldstation.fleet.errors import BadRequestError
from fieldstation.fleet.model import Device, DeviceState, Health, Step, Worker

M = TypeVar("M", bound=BaseModel)

MOST_FENCE = 2**53  # as far as every reader of JSON counts; databases count somewhat further
_NAME = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")


class DeviceMessage(BaseModel):
    """A device as its worker sees it."""

    serial: str = _NAME
    driver: str = ""
    state: DeviceState
    health: Health = Health.OK
    reason: str = Field("", max_length=10_000)
    kinds: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    fence: int = Field(0, ge=0, le=MOST_FENCE)

    def to_model(self, worker: str) -> Device:
        """Return the device, on `worker`."""
        return Device(
            serial=self.serial,
            worker=worker,
            driver=self.driver,
            state=self.state,
            kinds=self.kinds,
            fence=self.fence,
            health=self.health,
            reason=self.reason.replace("\x00", ""),
            labels=self.labels,
        )


class HelloMessage(BaseModel):
    """The first message on a line."""

    name: str = _NAME
    url: str = Field(min_length=1, max_length=1000, pattern=r"^https?://[^\s/@]+/?$")
    version: str = ""
    boot: str = ""
    kinds: tuple[str, ...] = ()
    draining: bool = False
    devices: list[DeviceMessage] = []
    leases: list[str] = []

    def to_model(self) -> Worker:
        """Return the worker without its devices."""
        return Worker(self.name, self.url.rstrip("/"), self.version, self.kinds, self.boot, draining=self.draining)


class BeatMessage(BaseModel):
    """A message that says nothing but that the worker lives, or what its name says."""


class GoneMessage(BaseModel):
    """A device is not there any more."""

    serial: str = _NAME


class PresenceMessage(BaseModel):
    """How many sockets present a lease."""

    lease: str
    sockets: int = Field(ge=0)


class FailedMessage(BaseModel):
    """A device cannot serve its lease."""

    lease: str
    serial: str
    reason: str = ""


class StepMessage(BaseModel):
    """A line for a device's history."""

    serial: str = _NAME
    step: str = Field(min_length=1, max_length=100)
    detail: str = Field("", max_length=10_000)
    at: datetime | None = None

    def to_model(self, worker: str) -> Step:
        """Return the step; its time is the worker's, or now when it says none that can be used."""
        try:
            at = self.at.astimezone(UTC) if self.at is not None and self.at.tzinfo is not None else datetime.now(UTC)
        except OverflowError:  # within hours of year 1 or 9999
            at = datetime.now(UTC)
        return Step(self.serial, self.step, self.detail.replace("\x00", ""), worker=worker, at=at)


class LogMessage(BaseModel):
    """Records of a worker's log; entries that are not [level, text] are skipped."""

    logs: list[Any] = Field(max_length=100_000)


def read(model: type[M], data: object) -> M:
    """Parse a message, or raise BadRequestError that names the field."""
    if not isinstance(data, Mapping):
        raise BadRequestError(field="argument", problem=f"it must be an object, not {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise BadRequestError(field=field or "argument", problem=problem) from error
