"""Change a station: configs, versions, releases."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from fieldstation.cli.output import print_json
from fieldstation.cli.station.life import wait_for_stop
from fieldstation.cli.station.place import config_of, entered, in_station
from fieldstation.station.place import Place


@click.group("config")
def config_group() -> None:
    """Look at the settings, or hand over new ones."""


@config_group.command("show")
@in_station
def config_show() -> None:
    """Print the config in force, secrets masked."""
    from fieldstation.station.config import as_data
    from fieldstation.station.secrets import masked

    print_json(masked(as_data(config_of(entered()))))


@config_group.command("schema")
@in_station
def config_schema() -> None:
    """Print the JSON schema of the config."""
    from fieldstation.station.project import open_project

    print_json(open_project(entered()).config_class.model_json_schema())


@config_group.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def config_check(file: Path) -> None:
    """Validate a config file for this version, without handing it over."""
    from fieldstation.station.project import open_project

    open_project(entered()).config_class.load_file(file)
    click.echo("the config is valid")


@config_group.command("push")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wait", "wait_s", default=0.0, help="Wait so many seconds for the verdict.")
@click.pass_context
def config_push(context: click.Context, file: Path, wait_s: float) -> None:
    """Hand a config over to the station here, as its server would: tried, then kept or rolled back."""
    from fieldstation.station.config import ForeignConfig
    from fieldstation.station.updater import Updater

    place = entered()
    foreign = ForeignConfig.load_from_string(file.read_text())
    Updater(config_of(place)).perform_update(foreign)
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


@click.command()
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

    place = entered()
    config = config_of(place)
    foreign = request_version(config, version, source)
    Updater(config).perform_update(foreign)
    click.echo(f"the change to version {version} is handed over as revision {foreign.general.config_revision}")
    _await_verdict(context, place, foreign, wait_s)


@click.command()
@in_station
@click.option("--config", "only_config", is_flag=True, help="Go back to the config before, not to the version before.")
def rollback(only_config: bool) -> None:
    """Go back by hand: stops the station, goes back, and starts it again when it was running."""
    from fieldstation.station.rollback import go_back
    from fieldstation.station.toggle import MainloopToggle

    place = entered()
    was_running = bool(MainloopToggle.get_mainloop_pids())
    done = go_back(place, only_config=only_config, stop=lambda: wait_for_stop(760.0))
    click.echo(done.sentence)
    if was_running:
        done.start()


@click.command()
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
