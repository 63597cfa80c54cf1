"""`fieldstation fleet devices | workers | reservations | events`: look, change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fieldstation.cli.fleet import options

DEVICES = {
    "serial": "serial",
    "worker": "worker",
    "driver": "driver",
    "state": "state",
    "health": "health",
    "reason": "reason",
    "kinds": "kinds",
    "client": "client",
    "until": "until",
}
WORKERS = {
    "name": "name",
    "url": "url",
    "state": "state",
    "draining": "draining",
    "version": "version",
    "kinds": "kinds",
}
RESERVATIONS = {
    "serial": "serial",
    "client": "client",
    "user": "user",
    "kind": "kind",
    "worker": "worker",
    "until": "until",
}
EVENTS = {"at": "time", "user": "user", "client": "client", "action": "what", "target": "about", "detail": "detail"}


def _list(control: str, token_file: Path | None, path: str) -> list[dict[str, Any]]:
    async def call(server: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await server.get(path)
        return rows

    return options.ask(control, token_file, call)


@click.command()
@options.server
@options.as_json
@click.option("--free", is_flag=True, help="Only devices that can be reserved now.")
def devices(control: str, token_file: Path | None, as_json: bool, free: bool) -> None:
    """List all devices: where they are, how they are, who holds them."""
    rows = _list(control, token_file, "/api/fleet/devices")
    if free:
        rows = [row for row in rows if row.get("state") == "available"]
    options.show(rows, DEVICES, as_json, "No devices. Does a worker run (fieldstation fleet worker)?")


@click.command()
@options.server
@options.as_json
def workers(control: str, token_file: Path | None, as_json: bool) -> None:
    """List the computers that host devices."""
    options.show(_list(control, token_file, "/api/fleet/workers"), WORKERS, as_json, "No workers.")


@click.command()
@options.server
@options.as_json
def reservations(control: str, token_file: Path | None, as_json: bool) -> None:
    """List who holds which device until when."""
    options.show(_list(control, token_file, "/api/fleet/reservations"), RESERVATIONS, as_json, "No reservations.")


@click.command()
@options.server
@options.as_json
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many.")
def events(control: str, token_file: Path | None, as_json: bool, limit: int) -> None:
    """List what happened in the fleet, newest first: reservations, devices, workers, and who did it."""
    options.show(
        _list(control, token_file, f"/api/fleet/events?limit={limit}"), EVENTS, as_json, "Nothing happened yet."
    )
