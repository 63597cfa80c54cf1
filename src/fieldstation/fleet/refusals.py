"""How a refused command is told: to a client as an event, and as the body of an acknowledgement."""

from __future__ import annotations

import json
from typing import Any

from fieldstation.fleet.errors import FleetError


def problem(error: Exception) -> dict[str, Any]:
    """Return `reason` (a code), `message` and, when one is to blame, `field`."""
    fields = getattr(error, "fields", {})
    code = fields.get("code") or (error.code if isinstance(error, FleetError) else "failed")
    found = {"reason": code, "message": str(error) or type(error).__name__}
    return {**found, "field": fields["field"]} if "field" in fields else found


def refusal(serial: str, error: Exception) -> str:
    """Return the wire's message that a command for `serial` was refused."""
    return json.dumps({"serial": serial, "contents": [{"event": "refused", **problem(error)}]})


def acknowledgement(error: Exception) -> dict[str, Any]:
    """Return `{"error": {"code", "message", "field"?}}`."""
    told = problem(error)
    return {"error": {"code": told.pop("reason"), **told}}
