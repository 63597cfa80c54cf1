"""`fieldstation tokens`: who may use a server that listens beyond this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from fieldstation.cli.output import json_option, print_json
from fieldstation.core.config import load
from fieldstation.core.errors import FieldstationError
from fieldstation.core.plugins import require
from fieldstation.core.security import Principal, Role, TokenFile, check_user_name

C = TypeVar("C", bound=Callable[..., object])


class UnknownUserError(FieldstationError):
    """{user!r} has no token there; nothing was changed. `fieldstation tokens list` shows who has."""


class Tokens(Protocol):
    """What a place of tokens can do; `TokenFile` is one, the control's database the other."""

    def add(self, user: str, role: Role) -> str:
        """Store a new token's hash and return the token."""

    def users(self) -> list[Principal]:
        """Tell who has a token."""

    def revoke(self, user: str) -> int:
        """Remove all tokens of a user; tell how many."""


class DatabaseTokens:
    """Tokens in the control's database; None stands for the database that control itself would take."""

    def __init__(self, database: str | None) -> None:
        feature = "fieldstation tokens without --file"
        if database is None:
            settings = require("fieldstation.fleet.config", extra="fleet", feature=feature)
            variables = settings.CONTROL_VARIABLES
            database = load(settings.ControlConfig, table="fleet.control", aliases=variables).database
        self._store = require("fieldstation.fleet.store", extra="fleet", feature=feature).Store(database)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        self._store.open()
        try:
            yield self._store
        finally:
            self._store.close()

    def add(self, user: str, role: Role) -> str:
        """Store a new token's hash and return the token."""
        with self._open() as store:
            return str(store.add_token(user, role))

    def users(self) -> list[Principal]:
        """Tell who has a token."""
        with self._open() as store:
            return [Principal(user, Role[role.upper()]) for user, role, *_ in store.list_tokens()]

    def revoke(self, user: str) -> int:
        """Remove all tokens of a user; tell how many."""
        with self._open() as store:
            return int(store.revoke_tokens(user))


def _place(file: Path | None, database: str | None) -> Tokens:
    return TokenFile(file) if file is not None and database is None else DatabaseTokens(database)


def _place_options(command: C) -> C:
    command = click.option(
        "--database",
        metavar="URL",
        help="The control's database, sqlite:///... or postgresql://...; wins over --file. Without either it is "
        "the one that `fieldstation fleet control` takes.",
    )(command)
    return click.option(
        "--file",
        envvar="FIELDSTATION_TOKENS",
        type=click.Path(dir_okay=False, path_type=Path),
        show_envvar=True,
        help="A token file (JSON, hashes only), for servers without a database.",
    )(command)


@click.group()
def tokens() -> None:
    """Create, list and revoke the tokens of users.

    A server that listens beyond 127.0.0.1 asks for them. They are stored as hashes, in the control's database or in a
    file; a change counts at once, without a restart. A client takes its token from FIELDSTATION_TOKEN or --token-file.
    """


@tokens.command()
@click.argument("user")
@click.option(
    "--role",
    type=click.Choice([role.name.lower() for role in Role]),
    default="user",
    show_default=True,
    help="viewer looks; user reserves; operator ends and reboots what is anybody's; admin manages tokens.",
)
@_place_options
def create(user: str, role: str, file: Path | None, database: str | None) -> None:
    """Create a token for USER and print it, this once: only its hash is kept."""
    check_user_name(user)
    click.echo(_place(file, database).add(user, Role[role.upper()]))
    click.echo(f"The token of {user} ({role}) is printed once; keep it in a file that only {user} can read.", err=True)


@tokens.command("list")
@json_option
@_place_options
def list_(as_json: bool, file: Path | None, database: str | None) -> None:
    """List who has a token, and with which role; the tokens themselves are stored nowhere."""
    rows = sorted((principal.user, principal.role.name.lower()) for principal in _place(file, database).users())
    if as_json:
        print_json([{"user": user, "role": role} for user, role in rows])
        return
    if not rows:
        click.echo("Nobody has a token.", err=True)
    for user, role in rows:
        click.echo(f"{user:<24} {role}")


@tokens.command()
@click.argument("user")
@_place_options
def revoke(user: str, file: Path | None, database: str | None) -> None:
    """Revoke all tokens of USER."""
    removed = _place(file, database).revoke(user)
    if not removed:
        raise UnknownUserError(user=user)
    click.echo(f"Revoked {removed} token{'s' if removed > 1 else ''} of {user}.")
