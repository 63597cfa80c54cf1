"""`/ui/login` and `/ui/logout`: plain pages that need no script. A login is a user's name and token."""

from __future__ import annotations

import time
from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import parse_qs, quote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Role, authorize
from fieldstation.fleet.control import Control
from fieldstation.fleet.store.ledger import Entry
from fieldstation.fleet.wire.guard import PRINCIPAL, SESSION_COOKIE, cookie_of
from fieldstation.web.attempts import Attempts
from fieldstation.web.errors import LoginRefusedError, TooManyLoginsError
from fieldstation.web.sessions import Sessions

MAX_FORM = 10_000
SAFE = {
    "content-security-policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
}


class Login:
    """The pages. Foreign pages cannot post here: the guard looks at `Origin` and `Sec-Fetch-Site`."""

    def __init__(self, control: Control, sessions: Sessions, attempts: Attempts, title: str) -> None:
        self.control = control
        self.sessions = sessions
        self.attempts = attempts
        self._title = title
        self._page = Template((files("fieldstation.web") / "static" / "login.html").read_text())

    def mount(self, app: FastAPI) -> None:
        """Add the routes; they come before the panel's own."""
        app.add_route("/ui/login", self.show, methods=["GET"], include_in_schema=False)
        app.add_route("/ui/login", self.log_in, methods=["POST"], include_in_schema=False)
        app.add_route("/ui/logout", self.log_out, methods=["POST"], include_in_schema=False)

    async def show(self, request: Request) -> Response:
        """The form; who needs no login is sent on."""
        if request.scope[PRINCIPAL] is not None and "again" not in request.query_params:
            return RedirectResponse(_inside(request.query_params.get("next", "")), 303)
        return self._form(request, "")

    async def log_in(self, request: Request) -> Response:
        """Look at name and token, open a session."""
        form = await _form(request)
        address = request.client.host if request.client else ""
        try:
            token = await self._checked(form.get("name", "").strip(), form.get("token", "").strip(), address)
        except TooManyLoginsError as error:
            answer = self._form(request, str(error), 429)
            answer.headers["retry-after"] = str(error.fields["wait_s"])
            return answer
        except FieldstationError as error:
            return self._form(request, str(error), 403)
        cookie = await self.sessions.open(token)
        answer = RedirectResponse(_inside(form.get("next", "")), 303, headers=SAFE)
        answer.set_cookie(
            SESSION_COOKIE, cookie, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer

    async def _checked(self, name: str, token: str, address: str) -> str:
        now = time.monotonic()
        if wait := self.attempts.wait_s(address, now):
            raise TooManyLoginsError(address=address, wait_s=int(wait) + 1)
        principal = await self.control.authenticate(token) if token else None
        if principal is None or principal.user != name:
            self.attempts.failed(address, now)
            self.control.record.audit(Entry("login refused", address or "unknown", detail="wrong name or token"))
            raise LoginRefusedError()
        authorize(principal, Role.VIEWER, "looking at the panel")
        self.attempts.succeeded(address)
        self.control.record.audit(Entry("login", principal.user, principal.user, detail=f"from {address}"))
        return token

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        if (cookie := cookie_of(request.headers.get("cookie", ""))) is not None:
            who = await self.sessions.whose(cookie)
            await self.sessions.end(cookie)
            if who is not None:
                self.control.record.audit(Entry("logout", who.user, who.user))
        answer = RedirectResponse("login?again=1", 303, headers=SAFE)
        answer.delete_cookie(SESSION_COOKIE, path="/")
        return answer

    def _form(self, request: Request, problem: str, status: int = 200) -> Response:
        note = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
        # Kept in the address of the form: a body is only read once.
        wanted = quote(_inside(request.query_params.get("next", "")), safe="/")
        page = self._page.substitute(title=escape(self._title), note=note, next=escape(wanted))
        return HTMLResponse(page, status, headers=SAFE)


def _inside(path: str) -> str:
    """Return where to go after the login: a page of the panel, never another site."""
    plain = path.startswith("/ui/") and "//" not in path and "\\" not in path and path.isprintable()
    return path if plain else "/ui/"


async def _form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
