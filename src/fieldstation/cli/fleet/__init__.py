"""`fieldstation fleet ...`: the servers, and what a person at a terminal does with devices."""

from __future__ import annotations

import click

from fieldstation.cli.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "control": ("fieldstation.cli.fleet.control:control", "Run the control server."),
    "migrate": ("fieldstation.cli.fleet.control:migrate", "Bring the fleet's database up to date."),
    "worker": ("fieldstation.cli.fleet.worker:worker", "Run a worker: host the devices plugged into this machine."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def fleet() -> None:
    """Reserve devices that are plugged into many computers."""
