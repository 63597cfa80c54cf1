"""Presses of the Approve and Deny buttons, over Slack's Socket Mode: no open port, only an outgoing line."""

from __future__ import annotations

import logging
import threading
from typing import Any, Self

from slack_sdk import WebClient
from slack_sdk.socket_mode.builtin import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

from fieldstation.kit.environment import setting
from fieldstation.kit.slack import APPROVE, DENY, Answer
from fieldstation.kit.slack_api import API

log = logging.getLogger(__name__)


class Presses:
    """The first valid press on one message. Who is not an approver is told so, privately, and nothing changes."""

    def __init__(self, ts: str, approvers: frozenset[str] | None) -> None:
        self._ts = ts
        self._approvers = approvers
        self._answer: Answer | None = None
        self._arrived = threading.Event()
        self._web = WebClient(token=setting("SLACK_BOT_TOKEN"), base_url=setting("SLACK_API_URL", API), timeout=10)
        self._socket = SocketModeClient(app_token=setting("SLACK_APP_TOKEN"), web_client=self._web)
        self._socket.socket_mode_request_listeners.append(self._hear)

    def __enter__(self) -> Self:
        try:
            self._socket.connect()
        except Exception as error:
            # Reactions still work; the person sees why the buttons do not.
            log.error("Slack's Socket Mode cannot be reached, so the buttons do not work: %s", error)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or at once when somebody has pressed a button."""
        self._arrived.wait(seconds)

    def take(self) -> Answer | None:
        """Return the answer, None while nobody has pressed."""
        return self._answer

    def _hear(self, client: Any, request: SocketModeRequest) -> None:
        # Slack wants this within three seconds, whatever comes of it.
        client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        payload = request.payload
        if request.type != "interactive" or payload.get("type") != "block_actions":
            return
        if payload.get("container", {}).get("message_ts", payload.get("message", {}).get("ts")) != self._ts:
            return
        user = str(payload.get("user", {}).get("id", ""))
        for action in payload.get("actions", ()):
            word = {APPROVE: "approved", DENY: "denied"}.get(action.get("action_id"))
            if word is None or self._answer is not None:
                continue
            if self._approvers is not None and user not in self._approvers:
                self._refuse(payload, user)
                continue
            self._answer = Answer(word, by=user, through="slack button")
            self._arrived.set()

    def _refuse(self, payload: dict[str, Any], user: str) -> None:
        channel = payload.get("channel", {}).get("id") or payload.get("container", {}).get("channel_id")
        try:
            self._web.chat_postEphemeral(
                channel=channel, user=user, text="You are not among those who may decide this."
            )
        except Exception as error:
            log.warning("%s could not be told that the press does not count: %s", user, error)
