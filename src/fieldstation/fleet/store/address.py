"""From what a person writes as the database to what SQLAlchemy opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from fieldstation.core.errors import StoreError
from fieldstation.core.log import mask

POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


@dataclass(frozen=True, slots=True)
class Address:
    """A database: what to hand to SQLAlchemy, and `shown`, which holds no password. `conninfo` is for libpq, which
    reads its own addresses best: they may hold several hosts, socket folders, TLS settings."""

    url: URL
    shown: str
    conninfo: str = ""
    file: Path | None = None


def parse(text: str) -> Address:
    """Understand `sqlite:///FILE` (or a plain path), a `postgresql://` address, or libpq's `key=value` words."""
    text = text.strip()
    shown = mask(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _postgres(text, shown) if "=" in text else _sqlite(Path(text), shown)
    if scheme == "sqlite":
        if not rest.startswith("/") or rest == "/":
            raise StoreError(path=shown, problem="an SQLite address is sqlite:///FILE (four slashes for /absolute)")
        return _sqlite(Path(rest[1:]), shown)
    if scheme in POSTGRES_SCHEMES:
        return _postgres(f"postgresql://{rest}", shown)
    raise StoreError(path=shown, problem=f"{scheme}:// is not supported; use sqlite:///FILE or postgresql://...")


def _sqlite(file: Path, shown: str) -> Address:
    return Address(URL.create("sqlite", database=str(file)), shown, file=file)


def _postgres(conninfo: str, shown: str) -> Address:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        raise StoreError(path=shown, problem=mask(str(error).strip())) from error
    return Address(URL.create("postgresql+psycopg"), shown, conninfo)
