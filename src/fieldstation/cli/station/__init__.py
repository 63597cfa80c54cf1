"""`fieldstation station ...`: make, run, look at and change a station."""

from __future__ import annotations

import click

from fieldstation.cli.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "new": ("fieldstation.cli.station.life:new", "Write a small station project that runs at once."),
    "run": ("fieldstation.cli.station.life:run", "Run in the foreground until SIGTERM or Ctrl-C."),
    "start": ("fieldstation.cli.station.life:start", "Start in the background; cron may call it every minute."),
    "stop": ("fieldstation.cli.station.life:stop", "Stop, and wait until the queue is drained."),
    "restart": ("fieldstation.cli.station.life:restart", "Stop, wait for the drain, start."),
    "status": ("fieldstation.cli.station.look:status", "Show processes, queues and what is wrong."),
    "health": ("fieldstation.cli.station.look:health", "Say in one line whether all is well."),
    "logs": ("fieldstation.cli.station.look:logs", "Show the newest log entries."),
    "queue": ("fieldstation.cli.station.look:queue", "Show what is owed to each uplink: how much, how old."),
    "config": ("fieldstation.cli.station.change:config_group", "Look at the settings, or hand over new ones."),
    "update": ("fieldstation.cli.station.change:update", "Change to another version."),
    "rollback": ("fieldstation.cli.station.change:rollback", "Go back to the version or config before."),
    "release": ("fieldstation.cli.station.change:release", "Make a release of the project in DIR and sign it."),
    "archive": ("fieldstation.cli.station.archive:archive", "Days of messages as files."),
    "info": ("fieldstation.cli.station.life:info", "Show version, interpreter and folders."),
    "is-running": ("fieldstation.cli.station.life:is_running", "Say whether it runs."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def station() -> None:
    """Run a remote computer unattended and lose no reading. DIR is the station's folder, by default this one."""
