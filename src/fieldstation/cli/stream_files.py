"""What needs no server: `fieldstation stream convert` and `fieldstation stream check`."""

from __future__ import annotations

from pathlib import Path

import click

from fieldstation.cli.output import json_option, print_json

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=FILE)
@click.argument("target", type=FILE)
@click.option("--format", "form", type=click.Choice(["zarr", "hdf5", "npz"]), help="By default from TARGET's suffix.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def convert(source: Path, target: Path, form: str | None, quiet: bool) -> None:
    """Convert a PFF file, or a run directory of them, to Zarr, HDF5 or NumPy."""
    from fieldstation.stream.convert import convert as work

    count, set_aside = work(source, target, form, quiet=quiet)
    click.echo(f"{count} frames in {target}" + (f", {set_aside} damaged stretches left out" if set_aside else ""))


@click.command()
@click.argument("source", type=FILE)
@json_option
def check(source: Path, as_json: bool) -> None:
    """Read a PFF file or run directory to its end and tell what is in it, damaged stretches included."""
    from fieldstation.stream.files import inspect

    reports = inspect(source)
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            click.echo(
                f"{report['file']}: {report['frames']} frames, {report['tail_bytes']} bytes of an incomplete one"
            )
            for stretch in report["damaged"]:
                click.echo(f"  bytes {stretch['offset']} to {stretch['end']}: {stretch['reason']}")
    if any(report["damaged"] for report in reports):
        raise SystemExit(1)


COMMANDS = (convert, check)
