"""`fieldstation up` and `fieldstation check`: run the roles of a site file, or only look at it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.cli.output import json_option, print_json
from fieldstation.core.plugins import require

if TYPE_CHECKING:
    from fieldstation.site.file import SiteFile

file_argument = click.argument(
    "file", metavar="[FILE]", type=click.Path(path_type=Path, dir_okay=False), default=Path("site.toml")
)
machine_option = click.option(
    "--machine",
    envvar="FIELDSTATION_MACHINE",
    metavar="NAME",
    help="Which of the file's [machines] this is (its name).",
)


@click.command()
@file_argument
@click.option("--only", multiple=True, metavar="ROLE", help="Start this role only, such as fleet.control; repeat it.")
@machine_option
def up(file: Path, only: tuple[str, ...], machine: str | None) -> None:
    """Run the roles of the site file FILE (site.toml) that belong to this machine, until SIGTERM or Ctrl-C.

    Prints `ready URL` once every role is. A role that ends is started again, after pauses that grow. What the roles
    say goes to stderr, each line with its role's name.
    """
    require("pydantic", extra="all", feature="fieldstation up")
    from fieldstation.site.compose import up as run

    if click.get_current_context().find_root().params.get("log_json"):
        os.environ["FIELDSTATION_LOG_JSON"] = "1"
    asyncio.run(run(file, machine=machine, only=only))


@click.command()
@file_argument
@machine_option
@json_option
def check(file: Path, machine: str | None, as_json: bool) -> None:
    """Validate the site file FILE (site.toml): every mistake with its line, else the roles and where they run.

    Exit code 0 or 1.
    """
    require("pydantic", extra="all", feature="fieldstation check")
    from fieldstation.site.errors import SiteFileError
    from fieldstation.site.file import read

    try:
        site = read(file)
    except SiteFileError as error:
        if not as_json:
            raise
        problems = str(error.fields.get("problems", error)).splitlines()
        print_json({"ok": False, "problems": problems})
        sys.exit(1)
    rows = explained(site, machine)
    if as_json:
        print_json({"ok": True, "site": site.site.name, "folder": str(site.folder), "roles": rows})
        return
    click.echo(f"{file} is in order: the site {site.site.name}, which keeps its files in {site.folder}")
    _table(rows)


def explained(site: SiteFile, machine: str | None) -> list[dict[str, Any]]:
    """Return a row for each role: where it runs, where it listens, what it waits for."""
    from fieldstation.site.plan import listens, roles, this_machine, with_defaults

    whole = with_defaults(site)
    planned = {}
    machines: list[str | None] = [*whole.machines] or [None]
    for name in machines:
        if not any(whole.machine_of(role) == name for role in whole.roles):
            continue
        for role in roles(site, machine=name):
            planned[role.name] = role
    here = this_machine(site, machine) if machine is not None else None
    rows = []
    for name in whole.roles:
        where = whole.machine_of(name)
        if here is not None and where != here:
            continue
        after = [other for other in planned[name].after if other in planned] if name in planned else []
        rows.append({"role": name, "machine": where or "", "listens": listens(whole, name), "after": after})
    return rows


def _table(rows: list[dict[str, Any]]) -> None:
    columns = (
        ["role", "machine", "listens", "after"] if any(r["machine"] for r in rows) else ["role", "listens", "after"]
    )
    shown = [[", ".join(r[c]) if isinstance(r[c], list) else str(r[c]) for c in columns] for r in rows]
    widths = [max(len(line[i]) for line in [columns, *shown]) for i in range(len(columns))]
    for line in [columns, *shown]:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
