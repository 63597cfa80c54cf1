"""Approvals as JSON objects, for the HTTP API and its clients; times are ISO 8601 in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fieldstation.flow.model import Answer, Approval, State, Word


def to_json(approval: Approval) -> dict[str, Any]:
    """Return what the API answers."""
    return {
        "id": approval.id,
        "title": approval.title,
        "action": dict(approval.action),
        "digest": approval.digest,
        "requester": approval.requester,
        "reason": approval.reason,
        "approvers": list(approval.approvers),
        "quorum": approval.quorum,
        "own_answer": approval.own_answer,
        "state": approval.state.value,
        "created_at": approval.created_at.isoformat(),
        "expires_at": approval.expires_at.isoformat(),
        "changed_at": approval.changed_at.isoformat() if approval.changed_at else None,
        "answers": [answer_to_json(answer) for answer in approval.answers],
        "version": approval.version,
    }


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """Return one answer."""
    return {
        "who": answer.who,
        "word": answer.word.value,
        "through": answer.through,
        "at": answer.at.isoformat(),
        "comment": answer.comment,
    }


def answer_from_json(fields: dict[str, Any]) -> Answer:
    """Return the answer that `answer_to_json` wrote."""
    return Answer(
        who=fields["who"],
        word=Word(fields["word"]),
        through=fields["through"],
        at=datetime.fromisoformat(fields["at"]),
        comment=fields.get("comment", ""),
    )


def from_json(fields: dict[str, Any]) -> Approval:
    """Return the approval of an API answer; fields it does not know are left alone."""
    changed = fields.get("changed_at")
    return Approval(
        id=fields["id"],
        title=fields["title"],
        action=fields["action"],
        digest=fields["digest"],
        requester=fields["requester"],
        reason=fields.get("reason", ""),
        approvers=tuple(fields.get("approvers", ())),
        quorum=fields.get("quorum", 1),
        own_answer=fields.get("own_answer", True),
        state=State(fields["state"]),
        created_at=datetime.fromisoformat(fields["created_at"]),
        expires_at=datetime.fromisoformat(fields["expires_at"]),
        changed_at=datetime.fromisoformat(changed) if changed else None,
        answers=tuple(answer_from_json(answer) for answer in fields.get("answers", ())),
        version=fields.get("version", 0),
    )
