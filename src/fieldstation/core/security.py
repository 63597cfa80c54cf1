"""Tokens, roles, TLS contexts, and the rules for what a server may be asked by a browser."""

from __future__ import annotations

import enum
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import secrets
import ssl
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fieldstation.core.errors import FieldstationError, InsecureBindError
from fieldstation.core.files import write_file

TOKEN_VARIABLE = "FIELDSTATION_TOKEN"  # noqa: S105 - the name of an environment variable
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


class UserNameError(FieldstationError):
    """{user!r} cannot be a user's name: use 1 to 64 letters, digits, dots, dashes or underscores."""


class TlsFileError(FieldstationError):
    """TLS cannot start with {paths}: {problem}."""


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
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def chained(previous: str, *fields: object) -> str:
    """Return the hash of one line of an append-only log: it covers the hash of the line before."""
    text = json.dumps([previous, *fields], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def check_user_name(user: str) -> str:
    """Return `user`, or raise UserNameError: the name travels in addresses (`http://name:token@host`) and in logs."""
    if not re.fullmatch(r"[\w.-]{1,64}", user, re.ASCII):
        raise UserNameError(user=user)
    return user


def own_token(file: Path | None = None, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the token this client shall present: from `file` (first line), else from FIELDSTATION_TOKEN, else None.

    There is no way to give it as a command line argument: every user of the machine can read those.
    """
    if file is None:
        return (os.environ if environ is None else environ).get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = file.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(path=file, problem=error) from error
    if not token:
        raise TokenFileError(path=file, problem="its first line shall be the token, and is empty")
    return token


class TokenFile:
    """Hashed tokens in a JSON file, for servers without a database: `{"<sha256>": {"user": ..., "role": ...}}`.

    The file is read again when it changes, so a revoked token stops working without a restart.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
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
        check_user_name(user)
        token = new_token()
        with self._locked():
            self._write({**self._entries, hash_token(token): Principal(user, role)})
        return token

    def revoke(self, user: str) -> int:
        """Remove all tokens of `user`; returns how many there were."""
        with self._locked():
            kept = {key: principal for key, principal in self._entries.items() if principal.user != user}
            removed = len(self._entries) - len(kept)
            if removed:
                self._write(kept)
        return removed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Two who change the file at the same moment would each write what the other has not seen.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise TokenFileError(path=self.path, problem=error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._refresh()
            yield
        finally:
            os.close(lock)

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._entries = None, {}
            return
        except OSError as error:
            raise TokenFileError(path=self.path, problem=error) from error
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return
        try:
            raw = json.loads(self.path.read_text())
            entries = {key: Principal(entry["user"], Role[entry["role"].upper()]) for key, entry in raw.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TokenFileError(path=self.path, problem=error) from error
        self._stamp, self._entries = stamp, entries

    def _write(self, entries: Mapping[str, Principal]) -> None:
        text = json.dumps({key: {"user": p.user, "role": p.role.name.lower()} for key, p in entries.items()}, indent=1)
        try:
            write_file(self.path, text, 0o600)  # a token that was revoked stays so after a power cut
        except OSError as error:
            raise TokenFileError(path=self.path, problem=error) from error


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
    `allowed_hosts` are host names without port, and may hold "*". An address in numbers is always fine as `Host`:
    rebinding needs a name. Another port of this machine is another site, since another user may have opened it;
    behind a proxy that drops the port from `Host`, the page's host must be in `allowed_hosts`.
    """
    if (site := headers.get("sec-fetch-site")) in {"cross-site", "same-site"}:
        return f"The request comes from another web site (Sec-Fetch-Site: {site})."
    names = {name.lower() for name in allowed_hosts}
    host, port = _host_and_port("//" + headers.get("host", ""))
    if host is None:
        return "The Host header is not an address."
    if host and not (host in names or "*" in names or is_loopback(host) or _is_address(host)):
        return f"This server is not called {host!r}; add the name with --allow-host if it is yours."
    origin = headers.get("origin")
    if origin is not None:
        page, page_port = _host_and_port(origin)
        default = {"http": 80, "https": 443}.get(origin.partition(":")[0])
        same_port = (page_port or default) == (port or default)
        if not page or page != host or not (same_port or page in names):
            return f"The request comes from a page of {origin!r}, which is not this server."
    return None


def _host_and_port(address: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.port
    except ValueError:
        return None, None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def server_tls(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return a TLS 1.2+ server context; with `client_ca`, only clients with a certificate of that CA get in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with _naming(certificate, key, client_ca):
        context.load_cert_chain(certificate, key, password=_no_password)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a TLS 1.2+ client context that checks certificate and host name, with our certificate when given."""
    with _naming(ca, certificate, key):
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key, password=_no_password)
    return context


@contextmanager
def _naming(*paths: Path | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError that does not name the file
        raise TlsFileError(paths=", ".join(str(path) for path in paths if path is not None), problem=error) from error


def _no_password() -> str:
    # Without this OpenSSL would ask at the terminal, and a server would wait there for ever.
    raise ValueError("the key is encrypted; store it decrypted with permissions 0600")
