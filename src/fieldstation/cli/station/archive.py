"""Days of messages as files."""

from __future__ import annotations

from pathlib import Path

import click

from fieldstation.cli.station.place import (
    entered,
    in_station,
)


@click.group()
def archive() -> None:
    """Days of messages as files."""


@archive.command("export")
@in_station
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="By default data/messages.")
@click.option("--day", help="One UTC day, YYYY-MM-DD; by default all.")
@click.option("--format", "form", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True,
              help="The documented CSV, or Parquet.")  # fmt: skip
def archive_export(folder: Path | None, day: str | None, form: str) -> None:
    """Write the messages of each UTC day to a file: the documented CSV, or Parquet (needs pyarrow)."""
    from fieldstation.station.export import export

    for path, count in export(entered().data_dir, folder, day, form):
        click.echo(f"{path}: {count} messages")
