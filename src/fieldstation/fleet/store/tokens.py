"""Users' tokens in the database. Only hashes are stored (`core.security.hash_token`)."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select

from fieldstation.core.security import Principal, Role, hash_token, new_token
from fieldstation.fleet.store.tables import token as table


def add(connection: Connection, user: str, role: Role) -> str:
    """Store a new token of `user` and return it."""
    fresh = new_token()
    row = {"hash": hash_token(fresh), "user": user, "role": role.name.lower(), "created_at": datetime.now(UTC)}
    connection.execute(insert(table).values(**row))
    return fresh


def listing(connection: Connection) -> list[tuple[str, str, str]]:
    """Return (user, role, ISO time of creation), oldest first."""
    rows = connection.execute(select(table.c.user, table.c.role, table.c.created_at).order_by(table.c.created_at))
    return [(user, role, created_at.isoformat()) for user, role, created_at in rows]


def revoke(connection: Connection, user: str) -> int:
    """Delete the tokens of `user`; returns how many."""
    return connection.execute(delete(table).where(table.c.user == user)).rowcount


def lookup(connection: Connection, token: str) -> Principal | None:
    """Return whose token this is."""
    row = connection.execute(select(table.c.user, table.c.role).where(table.c.hash == hash_token(token))).first()
    return None if row is None else Principal(row.user, Role[row.role.upper()])


def everybody(connection: Connection) -> dict[str, Principal]:
    """Return all tokens as hash -> principal, for a server that asks at every request."""
    rows = connection.execute(select(table.c.hash, table.c.user, table.c.role))
    return {row.hash: Principal(row.user, Role[row.role.upper()]) for row in rows}
