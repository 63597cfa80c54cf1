"""`fieldstation kit db`: look into a SQLite store and export from it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.cli.output import print_table
from fieldstation.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldstation.kit.database import Database, Rows

FILE = click.Path(path_type=Path)


@click.group()
def db() -> None:
    """Look into a SQLite store and export from it."""


@contextmanager
def _open(path: Path) -> Iterator[Database]:
    from fieldstation.kit.database import Database

    if not path.is_file():
        raise StoreError(path=path, problem="there is no such file")
    with Database(path) as database:
        yield database


def _print(rows: Rows, as_json: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, default=_plain))
        return
    print_table(rows.columns, [[_plain(value) for value in row.values()] for row in rows])


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value


@db.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per table.")
def tables(file: Path, as_json: bool) -> None:
    """List the tables of FILE with their columns and number of rows."""
    from fieldstation.kit.database import Table
    from fieldstation.kit.database_rows import Rows
    from fieldstation.kit.database_schema import quoted

    with _open(file) as database:
        found = []
        for name in database.tables():
            table = database.table(name)
            columns = ", ".join(table.columns) if isinstance(table, Table) else ""
            count = database.query(f"SELECT count(*) AS n FROM {quoted(name)}")[0]["n"]  # noqa: S608 - a name from the file
            found.append((name, count, columns))
    _print(Rows(["table", "rows", "columns"], found), as_json)


@db.command()
@click.argument("file", type=FILE)
@click.argument("sql")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per row.")
def query(file: Path, sql: str, as_json: bool) -> None:
    """Print the rows of a SELECT; it cannot change anything."""
    with _open(file) as database:
        _print(database.query(sql), as_json)


@db.command()
@click.argument("file", type=FILE)
@click.argument("sql")
@click.argument("output", type=FILE)
def export(file: Path, sql: str, output: Path) -> None:
    """Write the rows of a SELECT to OUTPUT, a .csv or .parquet file."""
    with _open(file) as database:
        click.echo(f"{database.export(output, sql)} rows to {output}")


@db.command()
@click.argument("file", type=FILE)
def check(file: Path) -> None:
    """Run SQLite's integrity check; exit code 1 when something is wrong."""
    with _open(file) as database:
        found = database.check()
    click.echo("\n".join(found) or "ok")
    if found:
        raise SystemExit(1)


@db.command()
@click.argument("file", type=FILE)
@click.argument("output", type=FILE)
def backup(file: Path, output: Path) -> None:
    """Copy FILE to OUTPUT while others write to it."""
    with _open(file) as database:
        database.backup(output)
    click.echo(f"{output} ({output.stat().st_size} bytes)")
