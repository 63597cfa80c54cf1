"""What commands print: tables for people, JSON for programs (`--json`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

PIPE_WIDTH = 240

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """Print a value as JSON, indented."""
    click.echo(json.dumps(value, indent=1))


def print_table(headings: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table on stdout. Cells are shown as they are: brackets in them are no mark-up, and nothing is cut off."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(Text(heading))
    for row in rows:
        table.add_row(*(Text(cell_of(value), overflow="fold") for value in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def cell_of(value: Any) -> str:
    """Return a value as a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={cell_of(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell_of(item) for item in value)
    return str(value)
