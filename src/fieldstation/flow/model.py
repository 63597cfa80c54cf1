"""What an approval is: what exactly would run, who asked, who answered, what became of it."""

from __future__ import annotations

import enum
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


class State(enum.StrEnum):
    """Where an approval stands. Only PENDING and APPROVED can still change."""

    PENDING = "pending"  # waits for answers
    APPROVED = "approved"  # may be used, once
    USED = "used"  # what was approved has been started
    DENIED = "denied"
    EXPIRED = "expired"  # nobody answered in time: closed, as a no
    CANCELLED = "cancelled"  # the requester took it back


class Word(enum.StrEnum):
    """What an approver says."""

    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Answer:
    """One approver's answer: `through` is the channel it came by (cli, api, panel, slack button, slack reaction)."""

    who: str
    word: Word
    through: str
    at: datetime
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """One request. `digest` binds it to exactly what will run; `approvers` may decide (empty: anybody may)."""

    id: str
    title: str
    action: Mapping[str, Any]
    digest: str
    requester: str
    created_at: datetime
    expires_at: datetime
    reason: str = ""
    approvers: tuple[str, ...] = ()
    quorum: int = 1
    own_answer: bool = True  # may the requester approve what they asked for
    state: State = State.PENDING
    answers: tuple[Answer, ...] = ()
    changed_at: datetime | None = None
    version: int = 0  # counts changes, so that two at once cannot both happen
    channel: Mapping[str, str] = field(default_factory=dict)  # where a view of it stands, such as a Slack message

    @property
    def is_open(self) -> bool:
        """True while answers are waited for."""
        return self.state is State.PENDING


def digest_of(action: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the action's canonical JSON (sorted keys, no blanks, UTF-8)."""
    text = json.dumps(action, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def command_action(
    command: str | list[str],
    *,
    pool: str = "",
    shell: bool = False,
    timeout_s: float = 3600.0,
    repeatable: bool = False,
) -> dict[str, Any]:
    """Return the action of a shell command: a text is split into arguments here, as the approver sees them.

    With `shell` the text goes to `/bin/sh -c` as it is. `repeatable` lets a worker run it again after a crash.
    """
    if shell:
        if not isinstance(command, str):
            raise ValueError("with shell=True the command is one text")
        arguments = ["/bin/sh", "-c", command]
    else:
        arguments = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if not arguments or not arguments[0]:
        raise ValueError("the command is empty")
    if any("\0" in word for word in arguments):
        raise ValueError("the command holds a NUL character")
    return {
        "kind": "command",
        "arguments": arguments,
        "shell": shell,
        "pool": pool,
        "timeout_s": float(timeout_s),
        "repeatable": repeatable,
    }


def shown(action: Mapping[str, Any]) -> str:
    """Return the action as a person should see it before saying yes: nothing hidden, control characters visible."""
    arguments, shell = _words(action.get("arguments")), bool(action.get("shell"))
    # Anybody may ask with anything: what only calls itself a command is shown as it is.
    if action.get("kind") == "command" and arguments and (len(arguments) == 3 or not shell):
        text = f"{arguments[2]}   (through a shell)" if shell else shlex.join(arguments)
    else:
        text = json.dumps(action, indent=1, sort_keys=True, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _words(value: object) -> list[str]:
    return value if isinstance(value, list) and all(isinstance(word, str) for word in value) else []
