"""`fieldstation plugins`."""

from __future__ import annotations

import click

from fieldstation.cli.output import json_option, print_json, print_table
from fieldstation.core.plugins import listing


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List what entry points offer: drivers, states, sources, procedures, uplinks, nodes, approvers."""
    found = listing()
    if as_json:
        print_json([plugin._asdict() for plugin in found])
        return
    print_table(
        ["group", "name", "from", "problem"],
        [[plugin.group, plugin.name, plugin.distribution, plugin.problem] for plugin in found],
    )
