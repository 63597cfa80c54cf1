"""The rules, with a clock that the test moves: a week costs nothing."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldstation.flow.approval import MOVES, answered, cancelled, expired, used
from fieldstation.flow.codec import from_json, to_json
from fieldstation.flow.errors import (
    AlreadyAnsweredError,
    ApprovalClosedError,
    ApprovalError,
    ApprovalExpiredError,
    DigestMismatchError,
    NotAnApproverError,
    NotApprovedError,
)
from fieldstation.flow.model import Answer, Approval, State, Word, command_action, digest_of, shown

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ACTION = command_action("ls -la", pool="pi")


def asked(**more: Any) -> Approval:
    fields: dict[str, Any] = {
        "id": "a-1",
        "title": "Run it",
        "action": ACTION,
        "digest": digest_of(ACTION),
        "requester": "eve",
        "created_at": NOW,
        "expires_at": NOW + timedelta(hours=1),
    }
    return Approval(**fields | more)


def says(who: str, word: Word = Word.APPROVE, after: timedelta = timedelta(0)) -> Answer:
    return Answer(who, word, "cli", NOW + after)


def test_one_yes_approves_and_it_can_be_used_once() -> None:
    approved = answered(asked(), says("ada"))
    assert approved.state is State.APPROVED
    done = used(approved, approved.digest, NOW)
    assert done.state is State.USED
    with pytest.raises(NotApprovedError):
        used(done, approved.digest, NOW)


def test_a_no_closes_it_and_a_later_yes_changes_nothing() -> None:
    denied = answered(asked(), says("ada", Word.DENY))
    assert denied.state is State.DENIED
    with pytest.raises(ApprovalClosedError, match="denied already"):
        answered(denied, says("bob"))
    with pytest.raises(NotApprovedError):
        used(denied, denied.digest, NOW)


def test_a_quorum_needs_different_people_and_one_no_is_enough() -> None:
    one = answered(asked(quorum=2), says("ada"))
    assert one.state is State.PENDING
    with pytest.raises(AlreadyAnsweredError):
        answered(one, says("ada"))
    assert answered(one, says("bob")).state is State.APPROVED
    assert answered(one, says("bob", Word.DENY)).state is State.DENIED


def test_a_stranger_decides_nothing() -> None:
    with pytest.raises(NotAnApproverError, match="mallory"):
        answered(asked(approvers=("ada", "bob")), says("mallory"))
    assert answered(asked(approvers=("ada", "bob")), says("bob")).state is State.APPROVED


def test_the_requester_may_be_kept_from_approving_but_can_always_say_no() -> None:
    own = asked(own_answer=False)
    with pytest.raises(NotAnApproverError, match="own request"):
        answered(own, says("eve"))
    assert answered(own, says("eve", Word.DENY)).state is State.DENIED


def test_time_closes_it_as_a_no_also_before_anybody_noticed() -> None:
    late = asked()
    assert expired(late, NOW + timedelta(minutes=59)) is None
    closed = expired(late, NOW + timedelta(hours=1))
    assert closed is not None
    assert closed.state is State.EXPIRED
    with pytest.raises(ApprovalExpiredError):
        answered(late, says("ada", after=timedelta(hours=1)))
    with pytest.raises(NotApprovedError):
        used(closed, closed.digest, NOW)


def test_a_week_later_an_approval_with_a_long_life_is_as_good_as_before() -> None:
    long = asked(expires_at=NOW + timedelta(days=8))
    approved = answered(long, says("ada", after=timedelta(days=7)))
    assert used(approved, approved.digest, NOW + timedelta(days=7)).state is State.USED


def test_what_was_not_approved_does_not_run() -> None:
    approved = answered(asked(), says("ada"))
    other = digest_of(command_action("rm -rf /", pool="pi"))
    with pytest.raises(DigestMismatchError):
        used(approved, other, NOW)
    with pytest.raises(NotApprovedError):
        used(asked(), asked().digest, NOW)


def test_what_was_taken_back_does_not_run() -> None:
    for taken in (cancelled(asked(), NOW), cancelled(answered(asked(), says("ada")), NOW)):
        with pytest.raises(NotApprovedError):
            used(taken, taken.digest, NOW)
        with pytest.raises(ApprovalClosedError):
            cancelled(taken, NOW)


@given(st.lists(st.sampled_from(["ada", "bob", "no-ada", "no-bob", "late", "use", "cancel", "expire"]), max_size=8))
def test_whatever_happens_it_moves_only_as_the_table_allows_and_is_used_at_most_once(steps: list[str]) -> None:
    current, uses = asked(quorum=2), 0
    for step in steps:
        before = current
        try:
            if step == "use":
                current = used(current, current.digest, NOW)
                uses += 1
            elif step == "cancel":
                current = cancelled(current, NOW)
            elif step == "expire":
                current = expired(current, NOW + timedelta(hours=2)) or current
            elif step == "late":
                current = answered(current, says("eve", after=timedelta(hours=2)))
            else:
                word = Word.DENY if step.startswith("no-") else Word.APPROVE
                current = answered(current, says(step.removeprefix("no-"), word))
        except ApprovalError:
            current = before
        assert current.state is before.state or current.state in MOVES[before.state]
        assert current.version - before.version in (0, 1)
    assert uses <= 1
    if uses:
        assert {a.who for a in current.answers if a.word is Word.APPROVE} == {"ada", "bob"}


@pytest.mark.parametrize(
    "change", [{"arguments": ["ls", "-l"]}, {"pool": "other"}, {"shell": True}, {"timeout_s": 1.0}, {"extra": None}]
)
def test_every_change_of_the_action_changes_the_digest(change: dict[str, Any]) -> None:
    assert digest_of({**ACTION, **change}) != digest_of(ACTION)


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of(dict(reversed(ACTION.items()))) == digest_of(ACTION)


def test_a_text_is_split_into_arguments_and_shell_syntax_is_just_text() -> None:
    assert command_action("ls -la '/my dir' ; rm x")["arguments"] == ["ls", "-la", "/my dir", ";", "rm", "x"]
    assert command_action("ls | wc", shell=True)["arguments"] == ["/bin/sh", "-c", "ls | wc"]
    for wrong in ("", "   ", "a\0b", []):
        with pytest.raises(ValueError, match=r"empty|NUL"):
            command_action(wrong)
    with pytest.raises(ValueError):
        command_action("unclosed '")


def test_the_approver_sees_what_runs_with_nothing_hidden() -> None:
    assert shown(command_action("echo `id` *bold* <x>")) == "echo '`id`' '*bold*' '<x>'"
    assert "\\x1b" in shown(command_action(["echo", "\x1b[2J"]))
    assert "\\u202e" in shown(command_action(["echo", "\u202etxt.exe"]))
    assert "(through a shell)" in shown(command_action("ls | wc", shell=True))


def test_a_record_survives_json() -> None:
    whole = answered(asked(quorum=2, approvers=("ada", "bob"), reason="because"), says("ada"))
    assert from_json(to_json(whole)) == whole


def test_what_only_calls_itself_a_command_is_shown_as_it_is() -> None:
    for action in (
        {"kind": "command"},
        {"kind": "command", "arguments": "rm -rf /"},
        {"kind": "command", "arguments": []},
        {"kind": "command", "arguments": [1, 2]},
        {"kind": "command", "arguments": ["/bin/sh"], "shell": True},
    ):
        assert json.loads(shown(action)) == action
