"""`fieldstation audit`: whether the audit log is as it was written."""

from __future__ import annotations

import dataclasses
import sys

import click

from fieldstation.cli.output import json_option, print_json
from fieldstation.core.config import load
from fieldstation.core.plugins import require


@click.group()
def audit() -> None:
    """Look whether the audit log is as it was written.

    Each line holds the hash of the line before: one that was changed, removed or moved does not fit any more. The
    lines themselves are shown by `fieldstation fleet events` and by the panel.
    """


@audit.command()
@click.option("--database", metavar="URL", help="The control's database; by default the one that control takes.")
@click.option("--expect", metavar="HASH", help="A hash that was noted earlier: some line must still have it.")
@json_option
def verify(database: str | None, expect: str | None, as_json: bool) -> None:
    """Walk the chain and name its first bad line; exit 1 when there is one.

    Note the printed hash somewhere else (on paper, in a mail): who can write to the database could make a whole new
    chain, and only `--expect` with a hash from before shows that.
    """
    feature = "fieldstation audit"
    settings = require("fieldstation.fleet.config", extra="fleet", feature=feature)
    given = {"database": database}
    config = load(settings.ControlConfig, table="fleet.control", aliases=settings.CONTROL_VARIABLES, overrides=given)
    store = require("fieldstation.fleet.store", extra="fleet", feature=feature).Store(config.database)
    try:
        store.open()
        found = store.verify_audit(expect)
    finally:
        store.close()
    if as_json:
        print_json({"ok": found.line is None, **dataclasses.asdict(found)})
    elif found.line is None:
        click.echo(f"{found.lines} lines are as they were written; the last one's hash is {found.hash}")
        if found.earlier:
            click.echo(f"{found.earlier} older lines are from before the chain began and cannot be checked", err=True)
    else:
        click.echo(f"line {found.line} is bad: {found.problem} ({found.lines} lines before it are good)", err=True)
    sys.exit(0 if found.line is None else 1)
