"""Addresses of control servers and workers: where to connect, and the secrets that travel in front of the host."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from fieldstation.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Address:
    """`url` without user-info and trailing slash, and the credentials that were in front of the host, or given."""

    url: str
    user: str = ""
    token: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that carry the token: bearer, or basic when the address also named a user."""
        if not self.token:
            return {}
        if not self.user:
            return {"Authorization": f"Bearer {self.token}"}
        return {"Authorization": "Basic " + base64.b64encode(f"{self.user}:{self.token}".encode()).decode()}


def parse(url: str, token: str | None = None) -> Address:
    """Take `http://[name:token@]host[:port]` apart; `token` is used when the address holds none."""
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must look like http://host:port")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        where = f"{host}:{parts.port}" if parts.port is not None else host
    except ValueError as error:
        raise ConfigError(
            key="control", source="the address", problem=f"{_hide(text)!r} is no server ({error})"
        ) from None
    secret = unquote(parts.password or "") or token or ""
    user = unquote(parts.username or "") if parts.password else ""
    return Address(f"{parts.scheme}://{where}{parts.path.rstrip('/')}", user, secret)


def parse_all(urls: str | Iterable[str], token: str | None = None) -> tuple[Address, ...]:
    """Parse one address, a comma-separated list, or a collection: the controls of one fleet, in order of preference."""
    texts = urls.split(",") if isinstance(urls, str) else list(urls)
    addresses = tuple(parse(text, token) for text in texts if text.strip())
    if not addresses:
        raise ConfigError(key="control", source="the address", problem="no server is named")
    return addresses


def _hide(text: str) -> str:
    return text.rpartition("@")[2]
