"""Look at a station."""

from __future__ import annotations

import json
from typing import Any

import click

from fieldstation.cli.output import json_option, print_json, print_table
from fieldstation.cli.station.place import config_of, entered, in_station
from fieldstation.core.errors import FieldstationError
from fieldstation.station.health import told_by
from fieldstation.station.place import current_place


@click.command()
@in_station
@json_option
def status(as_json: bool) -> None:
    """Show processes, queues and what is wrong."""
    from fieldstation.station.status import snapshot

    place = entered()
    found = told_by(place.data_dir)
    running = found is not None
    if found is None:
        found = {**snapshot(place, config_of(place), [], None), "ok": False, "problems": ["the station is not running"]}
    if as_json:
        print_json({"running": running, **found})
        return
    how = click.style("all is well", "green") if found["ok"] else click.style("; ".join(found["problems"]), "red")
    click.echo(f"{found['station']}, version {found['version']}, config revision {found['revision']}: {how}")
    if found["on_trial"] is not None:
        click.echo(f"the config of revision {found['on_trial']} is on trial")
    if found["processes"]:
        rows = []
        for process in found["processes"]:
            up = f"{process['uptime_s']:.0f} s" if process["running"] else f"starts in {process['starts_in_s']:g} s"
            rows.append([process["name"], process["kind"], process["pid"] or "-", up, process["deaths"]])
        print_table(["process", "kind", "pid", "up", "deaths"], rows)
    _print_queues(found["queues"], running)


def _print_queues(queues: dict[str, Any], running: bool) -> None:
    rows = []
    for name, queue in queues.items():
        oldest = "-" if queue["oldest_age_s"] is None else f"{queue['oldest_age_s']:.0f} s"
        server = "reached" if queue["connected"] else queue["last_error"] or "not reached"
        if not (running and queue["configured"]):
            server = "-"
        rows.append([
            name, queue["depth"], oldest, queue["parked"], queue.get("stored_per_minute", "-"),
            queue.get("delivered_per_minute", "-"), queue["delivered"], server,
        ])  # fmt: skip
    print_table(["queue", "waiting", "oldest", "set aside", "stored/min", "sent/min", "delivered", "server"], rows)


@click.command()
@in_station
@json_option
@click.pass_context
def health(context: click.Context, as_json: bool) -> None:
    """Say in one line whether all is well; exit code 0 when it is, 1 when not."""
    place = entered()
    found = told_by(place.data_dir) or {"ok": False, "problems": ["the station is not running"]}
    if as_json:
        print_json({"ok": found["ok"], "problems": found["problems"]})
    else:
        click.echo("all is well" if found["ok"] else "; ".join(found["problems"]))
    context.exit(0 if found["ok"] else 1)


@click.command()
@in_station
@click.option("-n", "--lines", default=40, show_default=True, help="How many of the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until Ctrl-C.")
@click.option("--level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"]), help="At least this.")
def logs(lines: int, follow: bool, level: str | None) -> None:
    """Show the newest log entries."""
    from fieldstation.station.logtail import entries, follow_entries

    folder = current_place().data_dir / "logs"
    for entry in entries(folder, lines, level):
        click.echo(entry)
    if follow:
        for entry in follow_entries(folder, level):
            click.echo(entry)


@click.command()
@in_station
@json_option
@click.option("--retry", metavar="UPLINK", help="Owe again what this uplink set aside.")
@click.option("--drop", metavar="UPLINK", help="Forget what this uplink is owed; the archive keeps it.")
@click.option("--show", metavar="UPLINK", help="Show the next rows of this uplink, and what it set aside.")
def queue(as_json: bool, retry: str | None, drop: str | None, show: str | None) -> None:
    """Show what is owed to each uplink: how much, how old, how fast."""
    from fieldstation.station.agent import WriterLine
    from fieldstation.station.status import snapshot
    from fieldstation.station.store import Reader

    place = entered()
    if retry or drop:
        name = retry or drop
        line = WriterLine(place.data_dir)
        if name not in Reader(place.queue_file).uplinks():
            raise FieldstationError(f"There is no uplink named {name!r}; `fieldstation station queue` lists them.")
        count = line.ask(("unpark", retry)) if retry else line.ask(("drop_uplink", drop))
        click.echo(f"{count} messages are owed again" if retry else f"{count} messages are no longer owed")
        return
    if show:
        reader = Reader(place.queue_file, show)
        rows = [{"number": r.seq, "timestamp": r.timestamp, "body": json.loads(r.body)} for r in reader.next_rows(20)]
        parked = [{"number": seq, "reason": reason} for seq, reason in reader.parked()]
        print_json({"next": rows, "set_aside": parked})
        return
    found = told_by(place.data_dir)
    queues = (found or snapshot(place, config_of(place), [], None))["queues"]
    if as_json:
        print_json(queues)
        return
    _print_queues(queues, found is not None)
