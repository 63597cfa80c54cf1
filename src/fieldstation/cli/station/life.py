"""Make, start and stop a station."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fieldstation.cli.output import json_option, print_json
from fieldstation.cli.station.place import StillRunningError, entered, in_station
from fieldstation.station.place import current_place


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", help="Its name; by default that of the folder.")
@click.option(
    "--root", type=click.Path(path_type=Path), help="The TUF root file that its releases are checked against."
)
def new(directory: Path, name: str | None, root: Path | None) -> None:
    """Write a small station project that runs at once."""
    from fieldstation.station.scaffold import new_project

    name = new_project(directory, name=name, root=root)
    click.echo(f"wrote the station {name} to {directory}; start it with: fieldstation station run {directory}")


@click.command()
@in_station
def run() -> None:
    """Run in the foreground until SIGTERM or Ctrl-C; prints `ready <url>` when everything has been started."""
    from fieldstation.station.main import run

    run()


@click.command()
@in_station
@click.pass_context
def start(context: click.Context) -> None:
    """Start in the background; does nothing when it runs already, so cron may call it every minute."""
    entered()
    from fieldstation.station.toggle import MainloopToggle

    MainloopToggle.start_mainloop()
    if not MainloopToggle.get_mainloop_pids():
        context.exit(1)


@click.command()
@in_station
@click.option("--timeout", "timeout_s", default=760.0, show_default=True, help="Seconds to wait for the drain.")
@click.option("--no-wait", is_flag=True, help="Ask, and do not wait.")
def stop(timeout_s: float, no_wait: bool) -> None:
    """Stop: procedures end, the queue drains for at most `max_drain_time`, then everything ends."""
    entered()
    wait_for_stop(0.0 if no_wait else timeout_s)


def wait_for_stop(timeout_s: float) -> None:
    """Ask the station to end and wait for it; StillRunningError when it drains longer than that."""
    from fieldstation.station.toggle import MainloopToggle

    pids = MainloopToggle.get_mainloop_pids()
    MainloopToggle.stop_mainloop()
    deadline = time.monotonic() + timeout_s
    while timeout_s and MainloopToggle.get_mainloop_pids() == pids and pids:
        if time.monotonic() > deadline:
            raise StillRunningError(pid=pids[0], timeout_s=timeout_s)
        time.sleep(0.05)
    if timeout_s and pids:
        click.echo("the station has stopped")


@click.command()
@in_station
def restart() -> None:
    """Stop, wait for the drain, start."""
    entered()
    from fieldstation.station.toggle import MainloopToggle

    wait_for_stop(760.0)
    MainloopToggle.start_mainloop()


@click.command("is-running")
@in_station
@click.pass_context
def is_running(context: click.Context) -> None:
    """Say whether it runs; exit code 0 when it does, 1 when not."""
    from fieldstation.station.toggle import MainloopToggle

    pids = MainloopToggle.get_mainloop_pids()
    click.echo(f"the station is running with the process id {pids[0]}" if pids else "the station is not running")
    context.exit(0 if pids else 1)


@click.command()
@in_station
@json_option
def info(as_json: bool) -> None:
    """Show version, interpreter and folders."""
    import sys

    place = current_place()
    facts = {
        "name": place.name, "version": place.version, "interpreter": sys.executable, "project": str(place.project_dir),
        "data": str(place.data_dir), "root": str(place.root_dir), "pointer": str(place.pointer),
    }  # fmt: skip
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        click.echo(f"{key:12} {value}")
