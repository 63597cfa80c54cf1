"""`fieldstation fleet ...`: the servers, and what a person at a terminal does with devices."""

from __future__ import annotations

import click

from fieldstation.cli.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "inspect": ("fieldstation.cli.fleet.inspect:inspect", "Say what a bitstream holds and what a board would count."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def fleet() -> None:
    """Reserve devices that are plugged into many computers."""
