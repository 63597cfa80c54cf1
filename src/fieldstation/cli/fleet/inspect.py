"""`fieldstation fleet inspect`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from fieldstation.cli.output import json_option, print_json


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Draw the counted pin's waveform here.")
@json_option
def inspect(file: Path, png: Path | None, as_json: bool) -> None:
    """Say what the bitstream FILE.bin holds, and what a board would count of it."""
    from fieldstation.fleet.twin import inspect as twin

    found = twin.inspect(file)
    if png is not None:
        twin.draw(found, png)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    for row in dataclasses.fields(found):
        value = getattr(found, row.name)
        if row.name == "changes_s":
            continue
        text = ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        table.add_row(row.name.replace("_", " "), text or "none")
    Console().print(table)
