"""Run an approved action: check the record and the digest immediately before, tell the audit afterwards."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fieldstation.flow.client import ApprovalsClient
from fieldstation.flow.command import Result, check_allowed, run_command
from fieldstation.flow.errors import ApprovalsUnreachableError, BadRequestError, CommandRefusedError
from fieldstation.flow.model import digest_of
from fieldstation.kit.environment import setting

ALLOW_VARIABLE = "FIELDSTATION_FLOW_ALLOW"
UNAPPROVED_VARIABLE = "FIELDSTATION_FLOW_UNAPPROVED"


def allow_list() -> tuple[str, ...]:
    """Return the patterns of FIELDSTATION_FLOW_ALLOW, one per line or `;`."""
    return tuple(p.strip() for p in setting(ALLOW_VARIABLE).replace("\n", ";").split(";") if p.strip())


def checked(action: Mapping[str, Any]) -> tuple[list[str], float]:
    """Return arguments and time-out of a command action, or name the field that is wrong."""
    arguments, timeout_s = action.get("arguments"), action.get("timeout_s", 3600.0)
    if action.get("kind") != "command":
        raise BadRequestError(field="action.kind", problem="this worker runs commands only")
    if not isinstance(arguments, list) or not arguments or not all(isinstance(a, str) for a in arguments):
        raise BadRequestError(field="action.arguments", problem="it is not a list of texts")
    if not isinstance(timeout_s, int | float) or not 0 < timeout_s < 10**7:
        raise BadRequestError(field="action.timeout_s", problem="it is not a number of seconds")
    return arguments, float(timeout_s)


def run_action(
    action: Mapping[str, Any],
    approval: str | None,
    *,
    pool: str | None = None,
    client: ApprovalsClient | None = None,
    allow: Sequence[str] | None = None,
    claimed: bool = False,
    on_claimed: Callable[[], None] | None = None,
    stop: threading.Event | None = None,
    on_output: Callable[[str], None] | None = None,
) -> Result:
    """Run a command action that was approved; nothing runs that was not.

    The control is asked with the digest of exactly this action, and marks the approval as used: once. Without an
    approval a command runs only when the allow-list names it or FIELDSTATION_FLOW_UNAPPROVED=1 opens this worker.
    `claimed` is for a repeatable action whose approval this worker had used before it died.
    """
    arguments, timeout_s = checked(action)
    if pool is not None and action.get("pool") != pool:
        raise BadRequestError(field="action.pool", problem=f"it is for the pool {action.get('pool')!r}, not {pool!r}")
    allow = allow_list() if allow is None else allow
    check_allowed(arguments, allow)
    if approval is None:
        if not allow and setting(UNAPPROVED_VARIABLE) != "1":
            problem = f"nobody has approved it ({UNAPPROVED_VARIABLE}=1 on this worker would let it pass)"
            raise CommandRefusedError(command=shlex.join(arguments)[:200], problem=problem)
    elif not claimed:
        client = client or ApprovalsClient()
        client.use(approval, digest_of(action))
        if on_claimed is not None:
            on_claimed()
    result = run_command(arguments, timeout_s=timeout_s, stop=stop, on_output=on_output)
    if approval is not None:
        _tell(client or ApprovalsClient(), approval, result)
    return result


def _tell(client: ApprovalsClient, approval: str, result: Result) -> None:
    details = {key: value for key, value in result.as_json().items() if key != "output"}
    try:
        client.note(approval, "finished" if result.ok else "failed", **details)
    except ApprovalsUnreachableError:
        return  # the orchestrator has the result; the audit has that it was used
