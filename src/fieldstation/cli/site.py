"""`fieldstation site`: the site file for other supervisors."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fieldstation.cli.up import file_argument, machine_option
from fieldstation.core.plugins import require


@click.group()
def site() -> None:
    """Write units, containers and compose files from a site file."""


@site.command()
@click.argument("form", type=click.Choice(["systemd", "container", "compose"]))
@file_argument
@machine_option
@click.option("--each", is_flag=True, help="With systemd: a unit for each role, and a target for all of them.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder to write to [standard output]."
)
def export(form: str, file: Path, machine: str | None, each: bool, output: Path | None) -> None:
    """Write FORM for the roles of the site file FILE (site.toml) that belong to this machine.

    `systemd` starts `fieldstation up` at boot; `container` is one image for all roles; `compose` runs each role in a
    container of its own, on the network of the host.
    """
    require("pydantic", extra="all", feature="fieldstation site")
    from fieldstation.site.export import export as texts
    from fieldstation.site.export import write
    from fieldstation.site.file import read
    from fieldstation.site.plan import this_machine

    found = read(file)
    made = texts(found, this_machine(found, machine), [form], each=each)
    if output is not None:
        for path in write(output, made):
            click.echo(path)
        return
    for name, text in made.items():
        sys.stdout.write(text if len(made) == 1 else f"# --- {name}\n{text}\n")
