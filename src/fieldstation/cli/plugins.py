"""`fieldstation plugins`."""

from __future__ import annotations

import json

import click

from fieldstation.cli.table import print_table
from fieldstation.core.plugins import listing


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def plugins(as_json: bool) -> None:
    """List what entry points offer: drivers, states, sources, procedures, uplinks, nodes, approvers."""
    found = listing()
    if as_json:
        click.echo(json.dumps([plugin._asdict() for plugin in found], indent=1))
        return
    print_table(
        ["group", "name", "from", "problem"],
        [[plugin.group, plugin.name, plugin.distribution, plugin.problem] for plugin in found],
    )
