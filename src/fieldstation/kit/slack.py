"""Slack for lab scripts: send a message, ask for an approval, wait for the answer.

    request = ask_for_approval("Heat the reactor to 400 K?")
    answer = await_approval_response(request["ts"], request["channel"])
    if answer == "approved":
        print("by", answer.by)

Reactions (thumbs up, thumbs down) work with SLACK_BOT_TOKEN alone; SLACK_APP_TOKEN (Socket Mode) makes the buttons
work.
For records that survive a restart, a quorum and an audit, use `fieldstation.flow` approvals.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

from fieldstation.core.plugins import require
from fieldstation.kit.environment import setting
from fieldstation.kit.slack_api import API, MAX_TEXT, SlackApi, SlackError, SlackRateLimitedError, escape

log = logging.getLogger(__name__)

APPROVE, DENY = "fieldstation_approve", "fieldstation_deny"
POLL_S = 5.0


class Answer(str):
    """`approved`, `denied` or `timeout`, as plain text; `by` is who decided (a Slack user), `through` how."""

    by: str
    through: str

    def __new__(cls, text: str, by: str = "", through: str = "") -> Answer:
        """Make an answer; it compares and prints as its text."""
        answer = super().__new__(cls, text)
        answer.by = by
        answer.through = through
        return answer


def default_channel() -> str:
    """Return DEFAULT_SLACK_CHANNEL, else `#general`."""
    return setting("DEFAULT_SLACK_CHANNEL", "#general")


def send_slack_message(message: str, channel: str | None = None) -> dict[str, Any]:
    """Post `message` (Slack mark-up allowed); returns Slack's answer, or {} after logging why it failed."""
    try:
        return SlackApi().call("chat.postMessage", channel=channel or default_channel(), text=message)
    except SlackError as error:
        log.error("%s", error)
        return {}


def ask_for_approval(prompt: str, channel: str | None = None) -> dict[str, Any]:
    """Post `prompt` with an Approve and a Deny button; returns what to wait with: `ts` and `channel`. {} on failure."""
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": prompt[:MAX_TEXT]}},
        {
            "type": "actions",
            "elements": [
                button("Approve", "primary", "approve", APPROVE),
                button("Deny", "danger", "deny", DENY),
            ],
        },
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": "Press a button, or react with :+1: or :-1: to this message."}],
        },
    ]
    try:
        return SlackApi().call(
            "chat.postMessage", channel=channel or default_channel(), text=f"Approval needed: {prompt}", blocks=blocks
        )
    except SlackError as error:
        log.error("%s", error)
        return {}


def button(text: str, style: str, value: str, action_id: str) -> dict[str, Any]:
    """Return Slack's block element of a button; a press sends `value` and `action_id` back."""
    return {
        "type": "button",
        "text": {"type": "plain_text", "text": text},
        "style": style,
        "value": value,
        "action_id": action_id,
    }


def approvers_from_environment() -> frozenset[str] | None:
    """Return the user ids in SLACK_APPROVERS (commas between), None when nobody is named: then anybody may decide."""
    named = frozenset(part.strip() for part in setting("SLACK_APPROVERS").split(",") if part.strip())
    return named or None


def await_approval_response(
    message_ts: str,
    channel: str,
    timeout_seconds: float = 300,
    *,
    approvers: Collection[str] | None = None,
    api: SlackApi | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] | None = None,
) -> Answer:
    """Wait for `approved`, `denied` or `timeout`, by button (SLACK_APP_TOKEN) or reaction; then close the message.

    `approvers` (Slack user ids, else SLACK_APPROVERS) may decide; without a list anyone in the channel may. The bot's
    own reactions count for nothing, and where people disagree, deny wins. A slow or unreachable Slack is waited for.
    """
    api = api or SlackApi()
    approvers = frozenset(approvers) if approvers is not None else approvers_from_environment()
    deadline = clock() + timeout_seconds
    with ExitStack() as stack:
        pressed = _listen(stack, message_ts, approvers)
        answer: Answer | None = None
        bot = _own_id(api)
        while answer is None:
            answer = pressed.take() if pressed is not None else None
            pause = POLL_S
            if answer is None:
                try:
                    answer = decide(_reactions(api, channel, message_ts), approvers, bot)
                except SlackRateLimitedError as error:
                    pause = float(str(error.fields["retry_after_s"]))
                except SlackError as error:
                    log.warning("%s", error)
            left = deadline - clock()
            if answer is None and left <= 0:
                answer = Answer("timeout")
            elif answer is None:
                pause = min(pause, left)
                if sleep is not None:
                    sleep(pause)
                elif pressed is not None:
                    pressed.wait(pause)
                else:
                    time.sleep(pause)
    assert answer is not None
    _close(api, channel, message_ts, answer)
    return answer


def decide(
    reactions: list[dict[str, Any]], approvers: Collection[str] | None = None, bot: str | None = None
) -> Answer | None:
    """Return what the reactions to a message mean, None while nobody who may decide has reacted."""
    for word, name in (("denied", "-1"), ("approved", "+1")):
        for reaction in reactions:
            # `+1::skin-tone-3` is a thumbs up as well; `thumbsup` is its other name.
            plain = {"thumbsup": "+1", "thumbsdown": "-1"}.get(r := str(reaction.get("name", "")).partition("::")[0], r)
            users = [u for u in reaction.get("users", ()) if u != bot and (approvers is None or u in approvers)]
            if plain == name and users:
                return Answer(word, by=users[0], through="slack reaction")
    return None


def _reactions(api: SlackApi, channel: str, ts: str) -> list[dict[str, Any]]:
    try:
        message = api.call("reactions.get", patience_s=0, channel=channel, timestamp=ts, full=True).get("message", {})
    except SlackError as error:
        if error.fields.get("code") != "missing_scope":
            raise
        # Apps that were set up for the older tool may read the history but not the reactions.
        found = api.call("conversations.history", patience_s=0, channel=channel, latest=ts, inclusive=True, limit=1)
        message = (found.get("messages") or [{}])[0]
        if message.get("ts") != ts:
            message = {}
    return list(message.get("reactions", ()))


def _own_id(api: SlackApi) -> str | None:
    try:
        return str(api.call("auth.test", patience_s=0).get("user_id", "")) or None
    except SlackError:
        return None


def _listen(stack: ExitStack, ts: str, approvers: frozenset[str] | None) -> Any:
    if not setting("SLACK_APP_TOKEN"):
        return None
    require("slack_sdk", extra="flow", feature="Slack's buttons (SLACK_APP_TOKEN)")
    from fieldstation.kit.slack_buttons import Presses

    return stack.enter_context(Presses(ts, approvers))


def _close(api: SlackApi, channel: str, ts: str, answer: Answer) -> None:
    who = f" by <@{answer.by}>" if answer.by else ""
    text = (
        "Nobody answered in time; this request is closed." if answer == "timeout" else f"*{answer.capitalize()}*{who}."
    )
    try:
        api.call(
            "chat.update",
            channel=channel,
            ts=ts,
            text=text,
            blocks=[{"type": "section", "text": {"type": "mrkdwn", "text": text}}],
        )
    except SlackError as error:
        log.warning("%s", error)


def __getattr__(name: str) -> Any:
    if name != "slack_client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    token = setting("SLACK_BOT_TOKEN")
    if not token:
        return None
    sdk: Any = require("slack_sdk", extra="flow", feature="slack_client")
    return sdk.WebClient(token=token, base_url=setting("SLACK_API_URL", API))


__all__ = [
    "Answer",
    "ask_for_approval",
    "await_approval_response",
    "decide",
    "default_channel",
    "escape",
    "send_slack_message",
]
