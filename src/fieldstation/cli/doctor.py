"""`fieldstation doctor`: look at this machine."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from fieldstation.cli.output import json_option, print_json
from fieldstation.cli.up import machine_option
from fieldstation.core.plugins import require

MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


@click.command()
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(path_type=Path, dir_okay=False))
@machine_option
@json_option
def doctor(file: Path | None, machine: str | None, as_json: bool) -> None:
    """Look at this machine, and at what the site file FILE (site.toml, when it is there) wants of it.

    One line for each thing: Python, packages, clock, serial ports, disk, files, ports, database, servers; and what to
    do where something is wrong. Exit code 1 when something is.
    """
    require("pydantic", extra="all", feature="fieldstation doctor")
    from fieldstation.site.doctor import examine

    if file is None and Path("site.toml").is_file():
        file = Path("site.toml")
    found = list(examine(file, machine))
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in found])
    else:
        width = max(len(finding.what) for finding in found)
        for finding in found:
            mend = f" -> {finding.mend}" if finding.mend else ""
            click.echo(f"{MARKS[finding.level]}  {finding.what:<{width}}  {finding.text}{mend}")
    sys.exit(1 if any(finding.level == "wrong" for finding in found) else 0)
