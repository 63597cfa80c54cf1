"""The approvals of a control server, asked over HTTP with the standard library: works in a base install.

It blocks, unlike the clients of other capabilities: a light worker has no event loop, and Prefect's tasks run it in
a thread.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.core.log import mask
from fieldstation.core.retry import Backoff
from fieldstation.core.security import TOKEN_VARIABLE
from fieldstation.flow import errors
from fieldstation.flow.codec import from_json
from fieldstation.flow.model import Approval, State
from fieldstation.kit.environment import setting, user_name

CONTROL_VARIABLE = "FIELDSTATION_CONTROL"

_KNOWN: dict[str, type[FieldstationError]] = {
    cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, FieldstationError)
}


class ApprovalsClient:
    """`url` is the control server, FIELDSTATION_CONTROL unless given; `http://name:token@host` carries a token, else
    FIELDSTATION_TOKEN does. Of several, separated by commas, the one that leads is asked."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        name: str | None = None,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        url = url or setting(CONTROL_VARIABLE)
        if not url:
            raise errors.ControlUnknownError()
        texts = [text.strip() for text in url.split(",") if text.strip()]
        several = [urllib.parse.urlsplit(text if "://" in text else f"http://{text}") for text in texts]
        inside = next((urllib.parse.unquote(parts.password) for parts in several if parts.password), "")
        self._token = token or inside or setting(TOKEN_VARIABLE)
        # The one that answered last comes first.
        self._urls = [f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/api/approvals" for parts in several]
        self._timeout_s = timeout_s
        self._tls = tls
        # Without a token the server cannot know who we are, so we say it; with one it knows better.
        self._by = None if self._token else (name or user_name())

    def ask(
        self,
        title: str,
        action: Mapping[str, Any],
        *,
        reason: str = "",
        approvers: Sequence[str] = (),
        quorum: int = 1,
        own_answer: bool = True,
        expires_in_s: float = 3600.0,
        key: str | None = None,
    ) -> Approval:
        """Ask, and return the record; a repeat with the same `key` finds the first one."""
        body = {
            "title": title,
            "action": dict(action),
            "reason": reason,
            "approvers": list(approvers),
            "quorum": quorum,
            "own_answer": own_answer,
            "expires_in_s": expires_in_s,
            "key": key,
        }
        return from_json(self._call("POST", "", body))

    def listing(self, state: State | str | None = None) -> list[Approval]:
        """Return the newest first."""
        found = self._call("GET", f"?state={urllib.parse.quote(state)}" if state else "")
        return [from_json(fields) for fields in found]

    def get(self, identity: str, *, wait_s: float = 0.0) -> Approval:
        """Return one; with `wait_s` once it is decided, or then (at most 60 s)."""
        query = f"?wait_s={wait_s:g}" if wait_s else ""
        return from_json(self._call("GET", _path(identity) + query, extra_s=wait_s))

    def audit(self, identity: str) -> list[dict[str, Any]]:
        """Return everything that happened to one, oldest first."""
        found: list[dict[str, Any]] = self._call("GET", _path(identity, "audit"))
        return found

    def approve(self, identity: str, comment: str = "", *, through: str = "api") -> Approval:
        """Say yes."""
        return from_json(self._call("POST", _path(identity, "approve"), {"comment": comment, "through": through}))

    def deny(self, identity: str, comment: str = "", *, through: str = "api") -> Approval:
        """Say no."""
        return from_json(self._call("POST", _path(identity, "deny"), {"comment": comment, "through": through}))

    def cancel(self, identity: str) -> Approval:
        """Take a request back."""
        return from_json(self._call("POST", _path(identity, "cancel"), {}))

    def use(self, identity: str, digest: str) -> Approval:
        """Use an approval, once, for what has this digest: call it right before it runs."""
        return from_json(self._call("POST", _path(identity, "use"), {"digest": digest}))

    def note(self, identity: str, what: str, **details: Any) -> None:
        """Append to the audit what became of it."""
        self._call("POST", _path(identity, "note"), {"what": what, "details": details})

    def wait(self, identity: str, *, sleep: Callable[[float], object] = time.sleep, poll_s: float = 20.0) -> Approval:
        """Return the record once it is decided (expiry closes it at the latest); waits for a control that is away."""
        backoff, failures = Backoff(initial_s=0.5, ceiling_s=30.0), 0
        while True:
            try:
                found = self.get(identity, wait_s=poll_s)
            except errors.ApprovalsUnreachableError:
                sleep(backoff.delay(failures))
                failures += 1
                continue
            failures = 0
            if not found.is_open:
                return found

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, extra_s: float = 0.0) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            credentials = base64.b64encode(f"token:{self._token}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        elif body is not None:
            body = {**body, "by": self._by}
        data = json.dumps(body).encode() if body is not None else None
        for url in tuple(self._urls):
            try:
                answer = self._ask(method, url, path, data, headers, self._timeout_s + extra_s)
            except errors.ApprovalsUnreachableError as error:
                # Only what surely did nothing is asked of the next one.
                if url == self._urls[-1] or not (error.fields.get("untouched") or method == "GET"):
                    raise
                continue
            self._urls.remove(url)
            self._urls.insert(0, url)
            return answer
        raise AssertionError("there is at least one address")

    def _ask(
        self, method: str, url: str, path: str, data: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> Any:
        request = urllib.request.Request(url + path, data, dict(headers), method=method)  # noqa: S310 - the user's own address
        try:
            with urllib.request.urlopen(request, timeout=timeout_s, context=self._tls) as response:  # noqa: S310 - as above
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise self._explained(url, error.code, error.read(100_000)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = getattr(error, "reason", None) or error
            untouched = isinstance(problem, ConnectionRefusedError)
            raise errors.ApprovalsUnreachableError(url=mask(url), problem=problem, untouched=untouched) from error

    def _explained(self, url: str, status: int, data: bytes) -> FieldstationError:
        try:
            fields = json.loads(data)
            if isinstance(fields.get("error"), dict):  # of the control itself: it does not lead
                fields = {"error": fields["error"].get("code"), "message": fields["error"].get("message")}
            code, message = str(fields.get("error", "")), str(fields.get("message", ""))
        except (ValueError, AttributeError):
            code, message = "", ""
        if code in _KNOWN:
            return _KNOWN[code](message)
        if status in (401, 403):
            return FieldstationError(message or f"The control server refused the token (HTTP {status}).")
        return errors.ApprovalsUnreachableError(
            url=mask(url), problem=message or f"it answers with HTTP {status}", untouched=code == "not_leader"
        )


def _path(identity: str, verb: str = "") -> str:
    return "/" + urllib.parse.quote(identity, safe="") + (f"/{verb}" if verb else "")
