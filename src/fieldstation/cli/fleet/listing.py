"""`fieldstation fleet devices | workers | reservations | events | history`: look, change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from fieldstation.cli.fleet import options
from fieldstation.cli.output import json_option

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
HISTORY = {"at": "time", "step": "what", "detail": "detail", "user": "user", "worker": "worker"}


def _list(control: str, token_file: Path | None, path: str) -> list[Any]:
    async def call(server: Any) -> list[Any]:
        rows: list[Any] = await server.get(path)
        return rows

    return options.ask(control, token_file, call)


@click.command()
@options.server
@json_option
@click.option("--free", is_flag=True, help="Only devices that can be reserved now.")
def devices(control: str, token_file: Path | None, as_json: bool, free: bool) -> None:
    """List all devices: where they are, how they are, who holds them."""
    rows = _list(control, token_file, "/api/fleet/devices")
    if free:
        # Control knows more than a device's state: its worker may be away, or others may wait for it.
        offered = set(_list(control, token_file, "/devices"))
        rows = [row for row in rows if row["serial"] in offered]
    options.show(rows, DEVICES, as_json, "No devices. Does a worker run (fieldstation fleet worker)?")


@click.command()
@options.server
@json_option
def workers(control: str, token_file: Path | None, as_json: bool) -> None:
    """List the computers that host devices."""
    options.show(_list(control, token_file, "/api/fleet/workers"), WORKERS, as_json, "No workers.")


@click.command()
@options.server
@json_option
def reservations(control: str, token_file: Path | None, as_json: bool) -> None:
    """List who holds which device until when."""
    options.show(_list(control, token_file, "/api/fleet/reservations"), RESERVATIONS, as_json, "No reservations.")


@click.command()
@options.server
@json_option
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many.")
def events(control: str, token_file: Path | None, as_json: bool, limit: int) -> None:
    """List what happened in the fleet, newest first: reservations, devices, workers, and who did it."""
    options.show(
        _list(control, token_file, f"/api/fleet/events?limit={limit}"), EVENTS, as_json, "Nothing happened yet."
    )


@click.command()
@click.argument("serial")
@options.server
@json_option
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many.")
def history(serial: str, control: str, token_file: Path | None, as_json: bool, limit: int) -> None:
    """List what was done for the device SERIAL, newest first: what broke, each step of its recovery, maintenance."""
    rows = _list(control, token_file, f"/api/fleet/history?serial={quote(serial, safe='')}&limit={limit}")
    options.show(rows, HISTORY, as_json, f"Nothing had to be done for {serial} yet.")
