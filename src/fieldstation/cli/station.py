"""`fieldstation station`: make, run, look at and change a station."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.core.errors import FieldstationError
from fieldstation.station.place import STATION_DIR, Place, current_place

if TYPE_CHECKING:
    from fieldstation.station.config import Config

Command = Callable[..., Any]


class NotRunningError(FieldstationError):
    """The station in {path} is not running. Start it with `fieldstation station start`."""


class StillRunningError(FieldstationError):
    """The station (process id {pid}) has not stopped within {timeout_s} s. It drains its queue; look at its logs."""


def in_station(command: Command) -> Command:
    """Give a command the optional argument DIR."""

    def enter(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        if value is not None:
            os.environ[STATION_DIR] = str(value.absolute())

    return click.argument(
        "directory", required=False, metavar="[DIR]", expose_value=False, callback=enter,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
    )(command)  # fmt: skip


def json_option(command: Command) -> Command:
    """Give a command `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _entered() -> Place:
    from fieldstation.station.main import enter

    return enter(current_place())


def _config(place: Place) -> Config:
    from fieldstation.station.project import open_project

    return open_project(place).load_config()


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def station() -> None:
    """Run a remote computer unattended and lose no reading. DIR is the station's folder, by default this one."""


@station.command()
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


@station.command()
@in_station
def run() -> None:
    """Run in the foreground until SIGTERM or Ctrl-C; prints `ready <url>` when everything has been started."""
    from fieldstation.station.main import run

    run()


@station.command()
@in_station
@click.pass_context
def start(context: click.Context) -> None:
    """Start in the background; does nothing when it runs already, so cron may call it every minute."""
    _entered()
    from fieldstation.station.toggle import MainloopToggle

    MainloopToggle.start_mainloop()
    if not MainloopToggle.get_mainloop_pids():
        context.exit(1)


@station.command()
@in_station
@click.option("--timeout", "timeout_s", default=760.0, show_default=True, help="Seconds to wait for the drain.")
@click.option("--no-wait", is_flag=True, help="Ask, and do not wait.")
def stop(timeout_s: float, no_wait: bool) -> None:
    """Stop: procedures end, the queue drains for at most `max_drain_time`, then everything ends."""
    _entered()
    _stop(0.0 if no_wait else timeout_s)


def _stop(timeout_s: float) -> None:
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


@station.command()
@in_station
def restart() -> None:
    """Stop, wait for the drain, start."""
    _entered()
    from fieldstation.station.toggle import MainloopToggle

    _stop(760.0)
    MainloopToggle.start_mainloop()


@station.command("is-running")
@in_station
@click.pass_context
def is_running(context: click.Context) -> None:
    """Say whether it runs; exit code 0 when it does, 1 when not."""
    from fieldstation.station.toggle import MainloopToggle

    pids = MainloopToggle.get_mainloop_pids()
    click.echo(f"the station is running with the process id {pids[0]}" if pids else "the station is not running")
    context.exit(0 if pids else 1)


@station.command()
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
        _print_json(facts)
        return
    for key, value in facts.items():
        click.echo(f"{key:12} {value}")


def _snapshot(place: Place) -> dict[str, Any] | None:
    import urllib.error
    import urllib.request

    from fieldstation.station.mainloop import health_url

    url = health_url(place.data_dir)
    if url is None:
        return None
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as response:  # noqa: S310 - our own loopback address
            return dict(json.load(response))
    except urllib.error.HTTPError as error:
        return dict(json.load(error))
    except OSError:
        return None


@station.command()
@in_station
@json_option
def status(as_json: bool) -> None:
    """Show processes, queues and what is wrong."""
    from fieldstation.station.status import snapshot

    place = _entered()
    found = _snapshot(place)
    running = found is not None
    if found is None:
        found = {**snapshot(place, _config(place), [], None), "ok": False, "problems": ["the station is not running"]}
    if as_json:
        _print_json({"running": running, **found})
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"{found['station']}, version {found['version']}, config revision {found['revision']}: "
        + ("[green]all is well[/]" if found["ok"] else f"[red]{'; '.join(found['problems'])}[/]")
    )
    if found["on_trial"] is not None:
        console.print(f"the config of revision {found['on_trial']} is on trial")
    if found["processes"]:
        table = Table("process", "kind", "pid", "up", "deaths", box=None)
        for process in found["processes"]:
            up = f"{process['uptime_s']:.0f} s" if process["running"] else f"starts in {process['starts_in_s']:g} s"
            table.add_row(process["name"], process["kind"], str(process["pid"] or "-"), up, str(process["deaths"]))
        console.print(table)
    _print_queues(console, found["queues"], running)


def _print_queues(console: Any, queues: dict[str, Any], running: bool) -> None:
    from rich.table import Table

    table = Table("queue", "waiting", "oldest", "set aside", "stored/min", "delivered", "server", box=None)
    for name, queue in queues.items():
        oldest = "-" if queue["oldest_age_s"] is None else f"{queue['oldest_age_s']:.0f} s"
        server = "reached" if queue["connected"] else queue["last_error"] or "not reached"
        if not (running and queue["configured"]):
            server = "-"
        table.add_row(
            name, str(queue["depth"]), oldest, str(queue["parked"]), str(queue.get("stored_per_minute", "-")),
            str(queue["delivered"]), server,
        )  # fmt: skip
    console.print(table)


@station.command()
@in_station
@json_option
@click.pass_context
def health(context: click.Context, as_json: bool) -> None:
    """Say in one line whether all is well; exit code 0 when it is, 1 when not."""
    place = _entered()
    found = _snapshot(place) or {"ok": False, "problems": ["the station is not running"]}
    if as_json:
        _print_json({"ok": found["ok"], "problems": found["problems"]})
    else:
        click.echo("all is well" if found["ok"] else "; ".join(found["problems"]))
    context.exit(0 if found["ok"] else 1)


@station.command()
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


@station.command()
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

    place = _entered()
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
        _print_json({"next": rows, "set_aside": parked})
        return
    found = _snapshot(place)
    queues = (found or snapshot(place, _config(place), [], None))["queues"]
    if as_json:
        _print_json(queues)
        return
    from rich.console import Console

    _print_queues(Console(highlight=False), queues, found is not None)


@station.group("config")
def config_group() -> None:
    """Look at the settings, or hand over new ones."""


@config_group.command("show")
@in_station
def config_show() -> None:
    """Print the config in force, secrets masked."""
    from fieldstation.station.config import as_data
    from fieldstation.station.secrets import masked

    _print_json(masked(as_data(_config(_entered()))))


@config_group.command("schema")
@in_station
def config_schema() -> None:
    """Print the JSON schema of the config."""
    from fieldstation.station.project import open_project

    _print_json(open_project(_entered()).config_class.model_json_schema())


@config_group.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def config_check(file: Path) -> None:
    """Validate a config file for this version, without handing it over."""
    from fieldstation.station.project import open_project

    open_project(_entered()).config_class.load_file(file)
    click.echo("the config is valid")


@config_group.command("push")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wait", "wait_s", default=0.0, help="Wait so many seconds for the verdict.")
@click.pass_context
def config_push(context: click.Context, file: Path, wait_s: float) -> None:
    """Hand a config over to the station here, as its server would: tried, then kept or rolled back."""
    from fieldstation.station.config import ForeignConfig
    from fieldstation.station.updater import Updater

    place = _entered()
    foreign = ForeignConfig.load_from_string(file.read_text())
    Updater(_config(place)).perform_update(foreign)
    click.echo(f"the config of revision {foreign.general.config_revision} is handed over")
    _await_verdict(context, place, foreign, wait_s)


def _await_verdict(context: click.Context, place: Place, foreign: Any, wait_s: float) -> None:
    from fieldstation.station.updates.answers import Answers, digest

    fingerprint = digest(foreign.model_dump(mode="json"))
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        answer = Answers(place.data_dir).last()
        if answer and answer["digest"] == fingerprint and answer["status"] != "received":
            click.echo(f"{answer['status']}" + (f": {answer['reason']}" if answer["reason"] else ""))
            context.exit(0 if answer["status"] == "accepted" else 1)
        time.sleep(0.1)
    if wait_s:
        click.echo("no verdict yet")
        context.exit(1)


@station.command()
@click.argument("version")
@in_station
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder (a USB stick) with `metadata` and `targets`; the signature is checked as always.",
)
@click.option("--wait", "wait_s", default=0.0, help="Wait so many seconds for the verdict.")
@click.pass_context
def update(context: click.Context, version: str, source: Path | None, wait_s: float) -> None:
    """Change to VERSION: fetched, checked, installed beside, tested, tried, and rolled back when it does not do."""
    from fieldstation.station.updater import Updater, request_version

    place = _entered()
    config = _config(place)
    foreign = request_version(config, version, source)
    Updater(config).perform_update(foreign)
    click.echo(f"the change to version {version} is handed over as revision {foreign.general.config_revision}")
    _await_verdict(context, place, foreign, wait_s)


@station.command()
@in_station
@click.option("--config", "only_config", is_flag=True, help="Go back to the config before, not to the version before.")
def rollback(only_config: bool) -> None:
    """Go back by hand: stops the station, goes back, and starts it again when it was running."""
    from fieldstation.station.rollback import go_back
    from fieldstation.station.toggle import MainloopToggle

    place = _entered()
    was_running = bool(MainloopToggle.get_mainloop_pids())
    done = go_back(place, only_config=only_config, stop=lambda: _stop(760.0))
    click.echo(done.sentence)
    if was_running:
        done.start()


@station.command()
@click.argument(
    "directory", metavar="[DIR]", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--to", "repository", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="The folder with `metadata` and `targets`, made when it is not there.")  # fmt: skip
@click.option("--keys", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="The folder with the keys, made when it is not there. Keep the root key offline.")  # fmt: skip
@click.option("--wheels", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Wheels to put in.")
@click.option("--expires-days", default=365, show_default=True, help="Until the release has to be signed again.")
@click.option("--rotate-root", is_flag=True, help="Make a new root key, signed by the old one.")
def release(
    directory: Path, repository: Path, keys: Path, wheels: Path | None, expires_days: int, rotate_root: bool
) -> None:
    """Make a release of the project in DIR and sign it. The passphrase is asked for, or in
    FIELDSTATION_RELEASE_PASSPHRASE."""
    from fieldstation.station.updates.release import Repository, pack

    passphrase = os.environ.get("FIELDSTATION_RELEASE_PASSPHRASE") or click.prompt(
        "Passphrase of the keys", hide_input=True, err=True
    )
    signed = Repository(repository, keys, passphrase)
    fresh = signed.ensure(expires_days)
    if rotate_root:
        signed.rotate_root(expires_days)
        click.echo("the root key is rotated; stations follow by themselves")
    archive = pack(directory, repository / "targets", wheels)
    signed.publish(archive, expires_days)
    click.echo(f"signed {archive}")
    if fresh:
        click.echo(
            f"new keys are in {keys}; make stations with: station new DIR --root {repository}/metadata/1.root.json"
        )


@station.group()
def archive() -> None:
    """Days of messages as files."""


@archive.command("export")
@in_station
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="By default data/messages.")
@click.option("--day", help="One UTC day, YYYY-MM-DD; by default all.")
@click.option("--format", "form", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
def archive_export(folder: Path | None, day: str | None, form: str) -> None:
    """Write the messages of each UTC day to a file: the documented CSV, or Parquet (needs pyarrow)."""
    from fieldstation.station.export import export

    for path, count in export(_entered().data_dir, folder, day, form):
        click.echo(f"{path}: {count} messages")
