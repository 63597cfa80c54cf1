"""`fieldstation fleet control` and `fieldstation fleet migrate`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from fieldstation.core.plugins import require
from fieldstation.fleet.lean import import_socketio

_DATABASE = "sqlite:///FILE, postgresql://..., or libpq words (host=... dbname=...)."


@click.command()
@click.option("--host", help="Address to listen on (127.0.0.1). Any but loopback needs tokens.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (8080); 0 takes a free one.")
@click.option("--database", metavar="URL", help=_DATABASE)
@click.option(
    "--config", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="TOML, [fleet.control]."
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name by which browsers may call this server.")
@click.option("--tls-certificate", type=click.Path(path_type=Path, exists=True), help="PEM file: serve HTTPS.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="Its private key.")
@click.option("--require-tokens", is_flag=True, default=None, help="Ask for a token on loopback too.")
@click.option("--insecure", is_flag=True, default=None, help="Listen on any address without tokens.")
@click.option("--panel/--no-panel", default=None, help="Serve the panel at /ui (where the extra `web` is installed).")
@click.option("--log-level", help="debug, info, warning or error; as after `fieldstation` itself.")
@click.option("--log-json", is_flag=True, default=None, help="One JSON object a line.")
def control(
    file: Path | None, panel: bool | None, log_level: str | None, log_json: bool | None, **options: Any
) -> None:
    """Run the control server: it knows the devices of all workers and who has reserved them.

    Prints `ready URL` when it accepts work. Stops on SIGTERM and Ctrl-C; reservations live on and are there again
    after the next start.
    """
    require("fastapi", extra="fleet", feature="The control server")
    import_socketio()
    from fieldstation.core import log, service
    from fieldstation.fleet import compose

    options["allow_hosts"] = options.pop("allow_host") or None
    log.setup(log_level, as_json=log_json)
    from fieldstation.flow import compose as flow

    server = compose.control(compose.control_config(file=file, overrides=options))
    desk, approvals = flow.approvals(server, flow.approvals_config(file))
    services = [server, *approvals, *_panel(server, desk, file, panel)]
    with asyncio.Runner(loop_factory=service.new_event_loop) as runner:
        runner.run(service.run(services, ready_url=lambda: server.url))


def _panel(server: Any, desk: Any, file: Path | None, wanted: bool | None) -> list[Any]:
    """Mount the panel. Without its extra it is missing quietly, unless somebody asked for it."""
    from importlib.util import find_spec

    from fieldstation.web.compose import mount, panel_config

    settings = panel_config(file, overrides={"enabled": wanted})
    if not settings.enabled or (wanted is None and find_spec("nicegui") is None):
        return []
    return mount(server, desk, settings)


@click.command()
@click.option("--database", metavar="URL", help=_DATABASE)
def migrate(database: str | None) -> None:
    """Bring the fleet's database to this version's schema; rows are kept.

    `fleet control` does the same when it starts.
    """
    require("sqlalchemy", extra="fleet", feature="The fleet's database")
    from fieldstation.core.config import load
    from fieldstation.fleet.config import CONTROL_VARIABLES, ControlConfig
    from fieldstation.fleet.store import Store

    given = {"database": database}
    config = load(ControlConfig, table="fleet.control", aliases=CONTROL_VARIABLES, overrides=given)
    store = Store(config.database)
    try:
        before, after = store.migrate()
    finally:
        store.close()
    change = "is up to date" if before == after else f"was migrated from {before or 'nothing'}"
    click.echo(f"{store.address.shown} {change}: schema {after}")
