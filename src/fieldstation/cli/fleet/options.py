"""What every client command of `fieldstation fleet` has in common: the server, the token, JSON, and the event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from fieldstation.cli.output import print_json, print_table
from fieldstation.core.plugins import require
from fieldstation.core.security import own_token
from fieldstation.kit.environment import user_name

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CONTROL = "http://127.0.0.1:8080"


def server(command: F) -> F:
    """Add `--control` and `--token-file`."""
    command = click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File with your token. Without it FIELDSTATION_TOKEN is used; a token is never an argument.",
    )(command)
    return click.option(
        "--control",
        envvar="FIELDSTATION_CONTROL",
        default=DEFAULT_CONTROL,
        show_default=True,
        help="Control server, or several separated by commas. [env: FIELDSTATION_CONTROL]",
    )(command)


def name(command: F) -> F:
    """Add `--name`, the client name that reservations are made under."""
    return click.option(
        "--name",
        default=default_name,
        help="Client name that holds the reservations; by default your user and host name.",
    )(command)


def wait(command: F) -> F:
    """Add `--wait`."""
    return click.option(
        "--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, help="Stand in the queue for so many seconds."
    )(command)


def default_name() -> str:
    """Return `user@host`."""
    return f"{user_name()}@{socket.gethostname()}"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; Ctrl-C and SIGTERM cancel it, so that reservations are ended before the command is."""

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    require("aiohttp", extra="fleet", feature="fieldstation fleet")
    try:
        return asyncio.run(main())
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.stderr.write("fieldstation: stopped\n")
        sys.exit(130)


def ask(control: str, token_file: Path | None, call: Callable[[Any], Awaitable[T]]) -> T:
    """Run `call` with a `fleet.client.http.Control`: one HTTP question, no sockets."""

    async def main() -> T:
        from fieldstation.fleet.client.address import parse_all
        from fieldstation.fleet.client.http import Control, new_session

        addresses = parse_all(control, own_token(token_file))
        async with new_session() as session:
            return await call(Control(session, addresses, patience_s=0.0 if len(addresses) == 1 else 5.0))

    return run(main())


def show(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], as_json: bool, nothing: str = "none") -> None:
    """Print rows as JSON, or as a table with `columns` (key -> heading)."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        click.echo(nothing)
        return
    print_table(columns.values(), [[row.get(key) for key in columns] for row in rows])
