"""Requests to the control server, at whichever of its addresses answers and leads."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from fieldstation.core.errors import FieldstationError
from fieldstation.core.retry import Backoff
from fieldstation.core.security import ForbiddenError, UnauthorizedError
from fieldstation.fleet import errors
from fieldstation.fleet.client.address import Address

REQUEST_TIMEOUT_S = 20.0  # as documented for every call to control
TAKE_OVER_S = 12.0  # of two controls the other one leads within 5 s; a loaded machine may need longer
CLOCKS_AGREE = timedelta(seconds=5)

_BY_CODE: dict[str, type[FieldstationError]] = {
    cls.code: cls
    for cls in (*vars(errors).values(), UnauthorizedError, ForbiddenError)
    if isinstance(cls, type) and issubclass(cls, FieldstationError)
}


class RefusedError(errors.FleetError):
    """The control server refused this ({status}) without a reason that this version understands."""


class Resolver(AbstractResolver):
    """Looks names up in a thread, and directly once the interpreter is ending.

    At exit Python stops thread pools before it calls atexit handlers; a reservation must still be ended then.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], list[ResolveResult]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of `host`, the remembered ones when no thread can be had."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        except RuntimeError:  # "cannot schedule new futures after shutdown"
            if (host, port) in self._known:
                return self._known[host, port]
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        self._known[host, port] = [
            ResolveResult(
                hostname=host,
                host=str(where[0]),
                port=int(where[1]),
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, where in found
        ]
        return self._known[host, port]

    async def close(self) -> None:
        """Nothing is held."""


def new_session() -> aiohttp.ClientSession:
    """Open the HTTP session that requests and sockets of one client share."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=Resolver(), limit=0),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=5),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class Control:
    """The control server as functions; `addresses` are those of one fleet, the one that answered last is asked first.

    Every method raises the server's own error (`fleet.errors`), or ControlUnreachableError when nobody answers until
    `patience_s` is over. A control that says it does not lead counts as not answering.
    """

    def __init__(
        self, session: aiohttp.ClientSession, addresses: Sequence[Address], *, patience_s: float = 5.0
    ) -> None:
        self._session = session
        self._addresses = list(addresses)
        self.patience_s = patience_s if len(self._addresses) == 1 else max(patience_s, TAKE_OVER_S)
        self._under_way: dict[asyncio.Timeout, Address] = {}
        self._ahead = timedelta()  # by how much the server's clock is ahead of ours, when they disagree

    def now(self) -> datetime:
        """Return the time of the server's clock, UTC, as its last answer told it."""
        return datetime.now(UTC) + self._ahead

    def _note_clock(self, date: str | None) -> None:
        try:
            ahead = parsedate_to_datetime(date or "") - datetime.now(UTC)
        except (ValueError, TypeError):
            return
        # The header counts whole seconds, and the answer took its time.
        self._ahead = ahead if abs(ahead) > CLOCKS_AGREE else timedelta()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses, the one that answered last first."""
        return tuple(self._addresses)

    def prefer(self, url: str) -> None:
        """Ask the control at `url` first from now on, and wait for the answer of no other: it leads."""
        self._addresses.sort(key=lambda address: address.url != url)
        now = asyncio.get_running_loop().time()
        for limit, address in self._under_way.items():
            if address.url != url:
                limit.reschedule(now)

    async def post(
        self,
        path: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        patience_s: float | None = None,
    ) -> Any:
        """POST the arguments as JSON; returns the decoded answer, None for an empty one."""
        return (await self.ask("POST", path, arguments, timeout_s=timeout_s, patience_s=patience_s))[1]

    async def get(self, path: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
        """GET one of the read-only endpoints."""
        return (await self.ask("GET", path, None, timeout_s=timeout_s))[1]

    async def ask(
        self,
        method: str,
        path: str,
        arguments: Mapping[str, Any] | None,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        patience_s: float | None = None,
        repeatable: bool = True,
    ) -> tuple[int, Any]:
        """Send one request; returns status and decoded answer of the first control that serves it.

        What is not `repeatable` is sent again only when it surely did not arrive the first time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + (self.patience_s if patience_s is None else patience_s)
        for delay in Backoff(0.1, 2.0 if len(self._addresses) == 1 else 0.5):
            problem: FieldstationError | None = None
            for address in tuple(self._addresses):
                try:
                    answer = await self._once(address, method, path, arguments, timeout_s)
                except (errors.NotLeaderError, errors.ControlUnreachableError) as error:
                    if error.fields.get("sent") and not repeatable:
                        raise
                    problem = problem or error
                    continue
                self._addresses.remove(address)
                self._addresses.insert(0, address)
                return answer
            assert problem is not None
            if loop.time() + delay > end:
                raise problem
            await asyncio.sleep(delay)
        raise AssertionError("a Backoff never ends")

    async def _once(
        self, address: Address, method: str, path: str, arguments: Mapping[str, Any] | None, timeout_s: float
    ) -> tuple[int, Any]:
        limit = asyncio.timeout(None)  # `prefer` may end it
        try:
            async with limit:
                self._under_way[limit] = address
                async with self._session.request(
                    method,
                    address.url + path,
                    json=None if arguments is None else dict(arguments),
                    headers=address.headers,
                    timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=5),
                    allow_redirects=False,
                ) as response:
                    text = await response.text()
                    status = response.status
                    self._note_clock(response.headers.get("Date"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = _problem(error, timeout_s)
            sent = not isinstance(error, aiohttp.ClientConnectorError)
            raise errors.ControlUnreachableError(url=address.url, problem=problem, sent=sent) from error
        finally:
            self._under_way.pop(limit, None)
        body = _decode(text)
        if status < 300:
            return status, body
        raise error_from(body, status)


def _problem(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "there is no host of that name"
    if isinstance(error, aiohttp.ClientConnectorError):
        # The event loop's own wording buries the reason ("Connect call failed (...)"); the number has it.
        number = error.os_error.errno
        return os.strerror(number).lower() if number else str(error.os_error)
    return str(error) or type(error).__name__


def _decode(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def error_from(body: Any, status: int = 0) -> FieldstationError:
    """Turn `{"error": {"code", "message", "field"?}}` into the error class of that code, its message kept."""
    found = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(found, Mapping):
        if status == 401:
            return UnauthorizedError()
        return RefusedError(status=status)
    cls = _BY_CODE.get(str(found.get("code")), errors.FleetError)
    fields = {key: found[key] for key in ("code", "field") if key in found}
    return cls(str(found.get("message") or cls.__doc__), **fields)
