"""Errors and their HTTP statuses: one table, two columns (precise ones for POST, the documented ones for GET)."""

from __future__ import annotations

from typing import Any

from fieldstation.core.errors import FieldstationError, StoreError
from fieldstation.core.security import ForbiddenError, UnauthorizedError
from fieldstation.fleet import errors

# The first class that fits decides. Documented: 400 for malformed input, otherwise 500.
STATUSES: tuple[tuple[type[FieldstationError], int, int], ...] = (
    (UnauthorizedError, 401, 401),
    (ForbiddenError, 403, 403),
    (errors.BadRequestError, 400, 400),
    (errors.UnknownKindError, 404, 500),
    (errors.UnknownSerialError, 404, 500),
    (errors.NotHeldError, 404, 500),
    (errors.NotEnoughDevicesError, 409, 500),
    (errors.DeviceBusyError, 409, 500),
    (errors.LeaseTooLongError, 403, 500),
    (errors.NotLeaderError, 503, 503),
    (errors.WorkerUnreachableError, 503, 500),
    (StoreError, 503, 500),
    (FieldstationError, 409, 500),
)


def status_of(error: FieldstationError, *, documented: bool) -> int:
    """Return the status: the documented one (GET) or the precise one (POST)."""
    if documented and error.fields.get("documented_status"):
        return int(str(error.fields["documented_status"]))
    return next(old if documented else new for cls, new, old in STATUSES if isinstance(error, cls))


def body_of(error: FieldstationError) -> dict[str, Any]:
    """Return `{"error": {"code", "message", "field"?}}`."""
    told: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.fields.get("field"):
        told["field"] = error.fields["field"]
    return {"error": told}
