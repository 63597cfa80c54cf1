"""`fieldstation fleet ...`: the servers, and what a person at a terminal does with devices."""

from __future__ import annotations

import click

from fieldstation.cli.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "inspect": ("fieldstation.cli.fleet.inspect:inspect", "Say what a bitstream holds and what a board would count."),
    "control": ("fieldstation.cli.fleet.control:control", "Run the control server."),
    "migrate": ("fieldstation.cli.fleet.control:migrate", "Bring the fleet's database up to date."),
    "worker": ("fieldstation.cli.fleet.worker:worker", "Run a worker: host the devices plugged into this machine."),
    "devices": ("fieldstation.cli.fleet.listing:devices", "List all devices."),
    "workers": ("fieldstation.cli.fleet.listing:workers", "List the computers that host devices."),
    "reservations": ("fieldstation.cli.fleet.listing:reservations", "List who holds which device until when."),
    "events": ("fieldstation.cli.fleet.listing:events", "List what happened in the fleet."),
    "reserve": ("fieldstation.cli.fleet.holding:reserve", "Reserve devices until they are ended."),
    "extend": ("fieldstation.cli.fleet.holding:extend", "Give reservations their full time again."),
    "end": ("fieldstation.cli.fleet.holding:end", "End reservations."),
    "evaluate": ("fieldstation.cli.fleet.evaluate:evaluate", "Reserve, evaluate files, print results, end."),
    "reboot": ("fieldstation.cli.fleet.care:reboot", "Have devices recover, keeping their queues."),
    "delete": ("fieldstation.cli.fleet.care:delete", "Forget devices that nobody holds."),
    "maintenance": ("fieldstation.cli.fleet.care:maintenance", "Take a device out of service, or put it back."),
    "history": ("fieldstation.cli.fleet.listing:history", "List what was done for one device."),
    "clear": ("fieldstation.cli.fleet.care:clear", "End all reservations of everybody."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def fleet() -> None:
    """Reserve devices that are plugged into many computers."""
