"""Tokens, roles, TLS contexts, and the rules for what a server may be asked by a browser."""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import json
import os
import secrets
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fieldstation.core.errors import FieldstationError, InsecureBindError

TOKEN_PREFIX = "fst_"  # noqa: S105 - the mark by which logs recognise and mask a token, not a secret


class Role(enum.IntEnum):
    """What a user may do; each role may do all that the ones below it may."""

    VIEWER = 1  # look
    USER = 2  # reserve and use what is free, end what is theirs
    OPERATOR = 3  # end, reboot, delete what is anybody's
    ADMIN = 4  # tokens and settings


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: a token's user and role. `local` is a person at this machine on a server bound to loopback."""

    user: str
    role: Role


LOCAL = Principal("local", Role.ADMIN)


class UnauthorizedError(FieldstationError):
    """This server needs a token: send it as a bearer token or in the address (http://name:token@host)."""


class ForbiddenError(FieldstationError):
    """{user} has the role {role}; {action} needs the role {needed}."""


class TokenFileError(FieldstationError):
    """The token file {path} cannot be used: {problem}."""


def authorize(principal: Principal, needed: Role, action: str) -> None:
    """Raise ForbiddenError unless `principal` has at least the role `needed`."""
    if principal.role < needed:
        raise ForbiddenError(
            user=principal.user, role=principal.role.name.lower(), action=action, needed=needed.name.lower()
        )


def new_token(prefix: str = TOKEN_PREFIX) -> str:
    """Return a fresh secret of 192 random bits."""
    return prefix + secrets.token_urlsafe(24)


def hash_token(token: str) -> str:
    """Return what is stored instead of the token. Tokens are random, so a fast hash is enough (no dictionary fits)."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokenFile:
    """Hashed tokens in a JSON file, for servers without a database: `{"<sha256>": {"user": ..., "role": ...}}`.

    The file is read again when it changes, so a revoked token stops working without a restart.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._entries: dict[str, Principal] = {}

    def lookup(self, token: str) -> Principal | None:
        """Return whose token this is, or None."""
        self._refresh()
        return self._entries.get(hash_token(token))

    def __len__(self) -> int:
        self._refresh()
        return len(self._entries)

    def users(self) -> list[Principal]:
        """Return who has a token, without the tokens: those are not stored."""
        self._refresh()
        return list(self._entries.values())

    def add(self, user: str, role: Role) -> str:
        """Create a token for `user`, store its hash, and return the token: the only time it can be seen."""
        token = new_token()
        self._refresh()
        self._write({**self._entries, hash_token(token): Principal(user, role)})
        return token

    def revoke(self, user: str) -> int:
        """Remove all tokens of `user`; returns how many there were."""
        self._refresh()
        kept = {key: principal for key, principal in self._entries.items() if principal.user != user}
        removed = len(self._entries) - len(kept)
        self._write(kept)
        return removed

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._entries = None, {}
            return
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return
        try:
            raw = json.loads(self.path.read_text())
            entries = {key: Principal(entry["user"], Role[entry["role"].upper()]) for key, entry in raw.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TokenFileError(path=self.path, problem=error) from error
        self._stamp, self._entries = stamp, entries

    def _write(self, entries: Mapping[str, Principal]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({key: {"user": p.user, "role": p.role.name.lower()} for key, p in entries.items()}, indent=1)
        temporary = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses; a name that is not resolved here counts as outside."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, *, has_tokens: bool, insecure: bool) -> None:
    """Raise InsecureBindError when anybody on the network could use a server that asks nobody who they are."""
    if not (is_loopback(host) or has_tokens or insecure):
        raise InsecureBindError(host=host)


def refuse_browser(headers: Mapping[str, str], allowed_hosts: Collection[str]) -> str | None:
    """Say why a request may come from a foreign web page, or None when it may not.

    Documented GETs change state, so a page anywhere could trigger them in a visitor's browser. Browsers tell:
    `Sec-Fetch-Site` and `Origin` name the page, and `Host` unmasks DNS rebinding. `headers` has lower-case names;
    `allowed_hosts` are host names without port, and may hold "*".
    """
    if headers.get("sec-fetch-site") == "cross-site":
        return "The request comes from another web site (Sec-Fetch-Site: cross-site)."
    host = urlsplit("//" + headers.get("host", "")).hostname or ""
    open_to_all = "*" in allowed_hosts
    if host and not open_to_all and not is_loopback(host) and host not in allowed_hosts:
        return f"This server is not called {host!r}; add the name with --allow-host if it is yours."
    origin = headers.get("origin")
    if origin is not None:
        name = urlsplit(origin).hostname or ""
        if name != host:
            return f"The request comes from a page of {origin!r}, which is not this server."
    return None


def server_tls(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return a TLS 1.2+ server context; with `client_ca`, only clients with a certificate of that CA get in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a TLS 1.2+ client context that checks certificate and host name, with our certificate when given."""
    context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
