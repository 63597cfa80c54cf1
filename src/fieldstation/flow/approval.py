"""The rules of approvals: pure functions from one record to the next. The clock is an argument."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from fieldstation.flow.errors import (
    AlreadyAnsweredError,
    ApprovalClosedError,
    ApprovalExpiredError,
    DigestMismatchError,
    NotAnApproverError,
    NotApprovedError,
)
from fieldstation.flow.model import Answer, Approval, State, Word

MOVES = {
    State.PENDING: {State.APPROVED, State.DENIED, State.EXPIRED, State.CANCELLED},
    State.APPROVED: {State.USED, State.CANCELLED},
    State.USED: set(),
    State.DENIED: set(),
    State.EXPIRED: set(),
    State.CANCELLED: set(),
}


def _moved(approval: Approval, state: State, now: datetime, **changes: object) -> Approval:
    if state not in MOVES[approval.state]:
        raise ApprovalClosedError(id=approval.id, state=approval.state)
    return replace(approval, state=state, changed_at=now, version=approval.version + 1, **changes)  # type: ignore[arg-type]  # checked by the fields' own types


def expired(approval: Approval, now: datetime) -> Approval | None:
    """Return the record closed by time, None when that has not come (or it is closed already)."""
    if approval.is_open and now >= approval.expires_at:
        return _moved(approval, State.EXPIRED, now)
    return None


def answered(approval: Approval, answer: Answer) -> Approval:
    """Return the record with one more answer. One deny closes it; `quorum` approvals from different people open it."""
    if not approval.is_open:
        raise ApprovalClosedError(id=approval.id, state=approval.state)
    if answer.at >= approval.expires_at:
        raise ApprovalExpiredError(id=approval.id, at=approval.expires_at.isoformat(timespec="seconds"))
    if approval.approvers and answer.who not in approval.approvers:
        raise NotAnApproverError(id=approval.id, who=answer.who, problem="the list of approvers does not name them")
    if answer.word is Word.APPROVE and answer.who == approval.requester and not approval.own_answer:
        raise NotAnApproverError(id=approval.id, who=answer.who, problem="nobody approves their own request here")
    if any(earlier.who == answer.who for earlier in approval.answers):
        raise AlreadyAnsweredError(id=approval.id, who=answer.who)
    answers = (*approval.answers, answer)
    if answer.word is Word.DENY:
        return _moved(approval, State.DENIED, answer.at, answers=answers)
    if sum(a.word is Word.APPROVE for a in answers) >= approval.quorum:
        return _moved(approval, State.APPROVED, answer.at, answers=answers)
    return replace(approval, answers=answers, changed_at=answer.at, version=approval.version + 1)


def cancelled(approval: Approval, now: datetime) -> Approval:
    """Return the record taken back; also one that was approved and not used yet."""
    return _moved(approval, State.CANCELLED, now)


def used(approval: Approval, digest: str, now: datetime) -> Approval:
    """Return the record as used by what has this digest. It works once; anything else is refused."""
    if digest != approval.digest:
        raise DigestMismatchError(id=approval.id)
    if approval.state is not State.APPROVED:
        raise NotApprovedError(id=approval.id, state=approval.state)
    return _moved(approval, State.USED, now)
