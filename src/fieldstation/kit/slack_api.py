"""Call Slack's Web API with the standard library: one POST, a time-out, a retry when Slack asks for one."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.kit.environment import setting

API = "https://slack.com/api/"
MAX_TEXT = 3_000  # what one block may hold; a message may have 40,000 characters


class SlackError(FieldstationError):
    """Slack did not take the call {method}: {problem}."""


class SlackTokenMissingError(SlackError):
    """Slack needs a token: set {variable} in the environment or in .env (Slack, your app, OAuth & Permissions)."""


class SlackRateLimitedError(SlackError):
    """Slack did not take the call {method}: too many calls; it wants a pause of {retry_after_s} s."""


class SlackUnreachableError(SlackError):
    """Slack cannot be reached for the call {method}: {problem}."""


_MENDS = {
    "invalid_auth": "the token is refused; check SLACK_BOT_TOKEN",
    "not_authed": "no token was sent; check SLACK_BOT_TOKEN",
    "token_revoked": "the token was revoked; make a new one and set SLACK_BOT_TOKEN",
    "account_inactive": "the token belongs to an account that was removed; make a new one",
    "channel_not_found": "there is no such channel here, or the bot cannot see it; check the name",
    "not_in_channel": "the bot is not in that channel; invite it with /invite",
    "is_archived": "the channel is archived",
    "missing_scope": "the app lacks a permission (scope); add it and install the app again",
}


def escape(text: str) -> str:
    """Return text that Slack shows as it is: `&`, `<` and `>` would otherwise be mark-up."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class SlackApi:
    """`call(method, **arguments)`: the answer as a dictionary, or one sentence. Holds no connection."""

    def __init__(
        self,
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._token = token or setting("SLACK_BOT_TOKEN")
        self._base_url = setting("SLACK_API_URL", API)
        self._timeout_s = timeout_s
        self._sleep = sleep

    def call(self, method: str, *, patience_s: float = 30.0, **arguments: Any) -> dict[str, Any]:
        """Call a method; a rate limit is waited for while `patience_s` lasts, then it is SlackRateLimitedError."""
        if not self._token:
            raise SlackTokenMissingError(variable="SLACK_BOT_TOKEN")
        while True:
            try:
                return self._post(method, arguments)
            except SlackRateLimitedError as error:
                pause = float(str(error.fields["retry_after_s"]))
                if pause > patience_s:
                    raise
                patience_s -= pause
                self._sleep(pause)

    def _post(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the address is Slack's, or the user's own setting
            self._base_url + method,
            data=json.dumps({k: v for k, v in arguments.items() if v is not None}).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json; charset=utf-8",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310 - as above
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 429:
                    pause = error.headers.get("Retry-After", "1")
                    pause = pause if pause.isascii() and pause.isdigit() else "1"
                    raise SlackRateLimitedError(method=method, retry_after_s=max(1, int(pause))) from error
            raise SlackUnreachableError(method=method, problem=f"it answers with HTTP {error.code}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = getattr(error, "reason", None) or error
            raise SlackUnreachableError(method=method, problem=problem) from error
        if not isinstance(answer, dict) or not answer.get("ok"):
            code = answer.get("error", "no reason") if isinstance(answer, dict) else "no answer"
            raise SlackError(method=method, problem=_MENDS.get(code, code), code=code)
        return answer
