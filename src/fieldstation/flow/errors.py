"""What can go wrong with approvals, commands and workers."""

from __future__ import annotations

from fieldstation.core.errors import FieldstationError


class ApprovalError(FieldstationError):
    """The approval {id} does not allow this: {problem}."""


class ApprovalUnknownError(ApprovalError):
    """There is no approval {id} here. `fieldstation approvals list` shows those there are."""


class ApprovalClosedError(ApprovalError):
    """The approval {id} is {state} already; nothing was changed."""


class ApprovalExpiredError(ApprovalError):
    """The approval {id} expired at {at}; nothing was changed. Ask again."""


class NotAnApproverError(ApprovalError):
    """{who} may not decide the approval {id}: {problem}."""


class AlreadyAnsweredError(ApprovalError):
    """{who} has answered the approval {id} already; each person counts once."""


class NotApprovedError(ApprovalError):
    """The approval {id} is {state}, so nothing runs."""


class DigestMismatchError(ApprovalError):
    """What is about to run is not what was approved as {id} (its digest differs), so nothing runs. Ask again."""


class ApprovalsUnreachableError(FieldstationError):
    """The approvals at {url} cannot be reached: {problem}. Is the control server running, and FIELDSTATION_CONTROL
    its address?"""


class ControlUnknownError(FieldstationError):
    """Approvals live in the control server and it is not known where that is: start one with `fieldstation fleet
    control` and set FIELDSTATION_CONTROL to its address."""


class BadRequestError(FieldstationError):
    """The field {field} is wrong: {problem}."""


class CommandRefusedError(FieldstationError):
    """The command {command} is not run: {problem}."""


class PrefectUnreachableError(FieldstationError):
    """The Prefect server {url} cannot be used: {problem}. Check PREFECT_API_URL."""


class PipelineStartError(FieldstationError):
    """The pipeline of {manifest} could not be started: {problem}. `fieldstation pipeline up` shows more."""
