"""Who asks? One ASGI middleware in front of everything: pages of others are refused, tokens become principals."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any

from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import LOCAL, ForbiddenError, Principal, Role, UnauthorizedError, refuse_browser
from fieldstation.fleet.wire.faults import body_of, status_of

Scope = dict[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
Authenticate = Callable[[str], Awaitable[Principal | None]]

PRINCIPAL = "fieldstation.principal"  # where the scope keeps who acts
AGAIN = "fieldstation.again"  # and how to ask later who that is by then: tokens are revoked, sessions end
SESSION_COOKIE = "fieldstation_session"

LATE = ("/socket.io/", "/health")  # the hand-shake may carry the token or a lease; load balancers have neither
ANYBODY = Principal("anonymous", Role.OPERATOR)  # on a server that was opened with --insecure

Again = Callable[[], Awaitable[Principal | None]]


class OwnNames(Collection[str]):
    """Host names by which this server may be called: those given, this machine's name, and any bare address (a page
    that rebinds DNS comes with a name)."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = {*names, socket.gethostname(), socket.getfqdn()}

    def __contains__(self, name: object) -> bool:
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(str(name).strip("[]"))
        except ValueError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def guarded(
    app: App,
    authenticate: Authenticate,
    *,
    open_to_all: bool,
    insecure: bool,
    names: Collection[str],
    foreign: Callable[[str], bool] = lambda token: False,
) -> Guard:
    """Return the guard of a server called `names`: who acts without a token there is `local` where it is open to all,
    anybody where it was opened with --insecure, and nobody elsewhere."""
    nobody = LOCAL if open_to_all else ANYBODY if insecure else None
    # Where everybody needs a token a page under another name gains nothing; elsewhere it must not get through.
    hosts = OwnNames(names) if nobody is not None else ("*",)
    return Guard(app, authenticate, nobody=nobody, hosts=hosts, late=LATE, foreign=foreign)


class Guard:
    """Refuses with 403 what a foreign web page sends, with 401 an unknown or missing token; puts the principal into
    the scope. `nobody` is who acts without a token, None where everybody needs one. What begins with a prefix in
    `late` is let through without a principal: a Socket.IO hand-shake may carry the token, and people without one must
    reach the page where they log in. There a token that is `foreign` passes too, for others to judge. `session` tells
    whose session a cookie is, where people can log in."""

    def __init__(
        self,
        app: App,
        authenticate: Authenticate,
        *,
        nobody: Principal | None,
        hosts: Collection[str],
        late: Collection[str] = ("/socket.io/",),
        foreign: Callable[[str], bool] = lambda token: False,
    ) -> None:
        self.app = app
        self.authenticate = authenticate
        self.nobody = nobody
        self.hosts = hosts
        self.late = {*late}
        self.foreign = foreign
        self.session: Authenticate | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if (why := refuse_browser(headers, self.hosts)) is not None:
                raise ForbiddenError(why)
            token = presented(headers.get("authorization", ""))
            again = self._asking(token, headers.get("cookie", ""))
            principal = await again()
            strange = token is not None and not self.foreign(token)
            if principal is None and (strange or not scope["path"].startswith(tuple(self.late))):
                raise UnauthorizedError()
        except FieldstationError as error:
            await _refuse(scope, send, error)
            return
        scope[PRINCIPAL], scope[AGAIN] = principal, again
        await self.app(scope, receive, send)

    def _asking(self, token: str | None, cookies: str) -> Again:
        """Return the question who acts; a page that stays open asks it again before everything it does."""
        session = self.session
        cookie = cookie_of(cookies) if token is None and session is not None else None

        async def whose() -> Principal | None:
            if token is not None:
                return await self.authenticate(token)
            found = await session(cookie) if session is not None and cookie is not None else None
            return found if found is not None else self.nobody

        return whose


def presented(authorization: str) -> str | None:
    """Return the token of a Bearer or Basic header (there it is the password), or None without a header."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return password
    return "" if authorization else None


def cookie_of(header: str) -> str | None:
    """Return the session's cookie of a Cookie header, or None."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == SESSION_COOKIE:
            return value
    return None


async def _refuse(scope: Scope, send: Callable[[Any], Awaitable[None]], error: FieldstationError) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    status = status_of(error, documented=scope["method"] == "GET")
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="Fieldstation", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body_of(error)).encode()})
