"""Arguments of the documented HTTP endpoints: where they are in a request, and what they may be."""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, ValidationError, field_validator
from starlette.requests import ClientDisconnect, Request

from fieldstation.core.errors import first_problem
from fieldstation.fleet.errors import BadRequestError

MAX_BODY = 4 * 1024 * 1024

M = TypeVar("M", bound=BaseModel)

Name = Annotated[
    StrictStr,
    Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", description="The client's name."),
]
Serial = Annotated[StrictStr, Field(max_length=200)]
Serials = Annotated[list[Serial], Field(max_length=10_000, description="Serials of devices.")]


Length = Annotated[
    Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None,
    Field(description="Length of the reservation from now, in seconds; without it as long as is usual."),
]


class Kind(BaseModel):
    """What every reservation says."""

    name: Name
    kind: StrictStr = Field(max_length=200, description="What the devices shall do, such as `pulsecount`.")
    args: dict[str, Any] = Field(description="Arguments of the kind.")
    wait_s: Annotated[float, Field(strict=True, ge=0)] | None = Field(
        None, description="Stand in the queue for at most so many seconds (capped at 15); then 202 and a ticket."
    )
    ticket: Annotated[StrictStr, Field(min_length=1, max_length=100)] | None = Field(
        None, description="Come back to a place in the queue."
    )
    for_s: Length = None
    leave: StrictBool = Field(False, description="Give the place up when `wait_s` is over and nothing became free.")
    priority: StrictInt = Field(0, ge=-100, le=100, description="Place in the queue: higher comes first.")
    labels: dict[StrictStr, StrictStr] = Field({}, description="Labels that the devices must have.")

    @field_validator("args")
    @classmethod
    def _storable(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise ValueError("it holds text or numbers that JSON cannot carry") from error
        return value


class Reserve(Kind):
    """Arguments of `/reserve`."""

    amount: StrictInt = Field(description="How many devices.", json_schema_extra={"minimum": 1})


class ReserveSerials(Kind):
    """Arguments of `/reserveserials`."""

    serials: Serials


class Named(BaseModel):
    """Arguments of `/endall`."""

    name: Name


class NamedSerials(Named):
    """Arguments of `/end`."""

    serials: Serials


class ExtendAll(Named):
    """Arguments of `/extendall`."""

    for_s: Length = None


class Extend(NamedSerials):
    """Arguments of `/extend`."""

    for_s: Length = None


class OnlySerials(BaseModel):
    """Arguments of `/reboot` and `/delete`."""

    serials: Serials


class Maintenance(BaseModel):
    """Arguments of `/api/fleet/maintenance`."""

    serial: Serial
    on: StrictBool = Field(description="True takes the device out of service, false puts it back.")
    reason: StrictStr = Field("", max_length=1000, description="Why; needed to take it out.")


class Logs(BaseModel):
    """Arguments of `/log`."""

    name: Name
    logs: list[Any] = Field(max_length=100_000, description="[level, text] each; others are skipped.")


class Devices(BaseModel):
    """Arguments of `/devices`."""

    all: StrictBool = Field(False, description="Every device, as objects, instead of the serials of free ones.")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _number(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"a whole number with {len(text)} figures; workers are told 64 bits")
    return number


async def read(request: Request, model: type[M], *, optional: bool = False) -> M:
    """Parse the request's arguments: its body when it is JSON, otherwise the query parameter `json`.

    `optional` allows a request without any. Raises BadRequestError that names the field.
    """
    text = await _text(request)
    if text is None:
        if not optional:
            raise BadRequestError(field="json", problem="send a JSON object as the body or in the query parameter json")
        text = b"{}"
    try:
        data = json.loads(text, parse_constant=_refuse, parse_int=_number)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(field="json", problem=f"this cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadRequestError(field="json", problem="the arguments must be a JSON object")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        field, problem = first_problem(error)
        field = field.partition(".")[0] or "json"
        raise BadRequestError(field=field, problem=problem[:1].lower() + problem[1:]) from error


async def _text(request: Request) -> bytes | str | None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise BadRequestError(field="body", problem=f"it is larger than {MAX_BODY} bytes")
        except ClientDisconnect as error:
            raise BadRequestError(field="body", problem="it ended early") from error
        if body:
            return bytes(body)
    return request.query_params.get("json")
