"""The shapes of answers, for the OpenAPI description. Nothing is validated with them at run time."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Amount(BaseModel):
    """Free devices."""

    amount: int


class Status(BaseModel):
    """Done."""

    status: str = "ok"


class ReservationRow(BaseModel):
    """One reserved device."""

    serial: str
    url: str = Field(description="The worker's address with the lease in it; newer clients read this.")
    ip: str = Field(description="The same for older clients, with `serverport`.")
    serverport: int
    fence: int = Field(description="The fencing number of this lease on this device.")
    lease: str = Field(description="The lease token. It is shown once.")
    until: str = Field(description="End of the lease, ISO 8601, UTC.")
    for_s: float = Field(description="The same as seconds from now, for those whose clock may differ.")


class PlaceInQueue(BaseModel):
    """Nothing is free yet."""

    ticket: str = Field(description="Ask again with it to keep the place; unasked for 30 s it is dropped.")
    position: int = Field(description="1 is next.")
    reason: str = Field(description="For people.")
    code: str = Field(description="For programs: too_few_exist, too_few_free or behind_others.")
    wanted: int = Field(description="Devices asked for.")
    free: int = Field(description="Of those that fit, how many nobody holds.")
    exist: int = Field(description="How many fit at all.")
    ahead: int = Field(description="Requests before this one that want some of the same devices.")
    estimate_s: float | None = Field(description="At the latest, unless leases are extended; null when unknown.")


class DeviceRow(BaseModel):
    """A device."""

    serial: str
    worker: str
    worker_state: str
    driver: str
    state: str
    health: str
    reason: str
    kinds: list[str]
    labels: dict[str, str]
    fence: int
    client: str | None
    user: str | None
    kind: str | None
    until: str | None


class WorkerRow(BaseModel):
    """A worker."""

    name: str
    url: str
    version: str
    kinds: list[str]
    state: str
    draining: bool
    devices: int
    seen_at: str | None


class Reservation(BaseModel):
    """A reserved device and its holder."""

    serial: str
    client: str
    user: str
    worker: str
    kind: str
    fence: int
    until: str
    lease: str


class AuditRow(BaseModel):
    """A line of the audit log."""

    id: int
    at: str
    user: str
    client: str
    action: str
    target: str
    detail: str


class HistoryRow(BaseModel):
    """A line of a device's history."""

    id: int
    at: str
    serial: str
    worker: str
    user: str
    step: str
    detail: str


class Service(BaseModel):
    """A device after it was taken out of service or put back."""

    serial: str
    health: str
    reason: str
    client: str | None = Field(description="Who holds it and keeps it until the reservation ends.")


class Problem(BaseModel):
    """What went wrong."""

    code: str
    message: str
    field: str | None = None


class Error(BaseModel):
    """The body of every answer that is not a success."""

    error: Problem


_PRECISE = {
    400: "An argument is wrong; `field` names it.",
    404: "There is no such device, kind or reservation.",
    409: "The devices are not free, or the worker refused.",
    503: "A worker or the database does not answer; try again.",
}
_DOCUMENTED = {400: "An argument is malformed; `field` names it.", 500: "Refused; the body says why."}
_ALWAYS = {401: "A token is needed.", 403: "The token's role does not suffice, or a foreign web page asks."}


def responses(path: str, takes_arguments: bool, answer: Any, *, documented: bool) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of one operation: precise statuses for POST, the documented ones for GET."""
    own = path.startswith("/api/")
    failures = _PRECISE if own or not documented else _DOCUMENTED
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": Error, "description": text} for status, text in {**_ALWAYS, **failures}.items()
    }
    if not takes_arguments and path not in ("/api/fleet/events", "/api/fleet/history"):
        found.pop(400, None)
    found[200] = {"description": "Done."} if answer is None else {"model": answer, "description": "Done."}
    if path in ("/reserve", "/reserveserials"):
        found[202] = {"model": PlaceInQueue, "description": "You stand in the queue (only with wait_s or ticket)."}
    return found
