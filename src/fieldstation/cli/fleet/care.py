"""`fieldstation fleet reboot | delete | maintenance | clear`: what an operator does with devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fieldstation.cli.fleet import options
from fieldstation.cli.output import json_option


def _command(path: str, serials: tuple[str, ...], control: str, token_file: Path | None, as_json: bool) -> None:
    async def call(server: Any) -> list[str]:
        done: list[str] = await server.post(path, {"serials": list(serials)})
        return done

    done = options.ask(control, token_file, call)
    options.show([{"serial": serial} for serial in done], {"serial": "serial"}, as_json, "no worker accepted that")
    if set(done) != set(serials):
        missed = ", ".join(serial for serial in serials if serial not in done)
        raise click.ClickException(f"The worker of {missed} did not accept that.")


@click.command()
@click.argument("serials", nargs=-1, required=True)
@options.server
@json_option
def reboot(serials: tuple[str, ...], control: str, token_file: Path | None, as_json: bool) -> None:
    """Have devices recover from whatever they hang in; their queues are kept. Prints the accepted serials."""
    _command("/reboot", serials, control, token_file, as_json)


@click.command()
@click.argument("serials", nargs=-1, required=True)
@options.server
@json_option
def delete(serials: tuple[str, ...], control: str, token_file: Path | None, as_json: bool) -> None:
    """Forget devices that nobody holds; those still plugged in come back freshly flashed."""
    _command("/delete", serials, control, token_file, as_json)


SERVICE = {"serial": "serial", "health": "health", "reason": "reason", "client": "still held by"}


@click.command()
@click.argument("serial")
@click.argument("switch", type=click.Choice(["on", "off"]), metavar="on|off")
@click.option("--reason", default="", help="Why; others see it in the list of devices. Needed for `on`.")
@options.server
@json_option
def maintenance(serial: str, switch: str, reason: str, control: str, token_file: Path | None, as_json: bool) -> None:
    """Take the device SERIAL out of service (on), or put it back (off), a quarantined one too.

    Out of service it is offered to nobody, and its worker leaves it alone: no flash, no health check, no power cycle.
    Who holds it keeps it until the reservation ends. It stays out over restarts and while it is unplugged.
    """
    if switch == "on" and not reason.strip():
        raise click.UsageError("Say why with --reason, so that others know.")

    async def call(server: Any) -> dict[str, Any]:
        arguments = {"serial": serial, "on": switch == "on", "reason": reason}
        answer: dict[str, Any] = await server.post("/api/fleet/maintenance", arguments)
        return answer

    options.show([options.ask(control, token_file, call)], SERVICE, as_json)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.server
@json_option
def clear(yes: bool, control: str, token_file: Path | None, as_json: bool) -> None:
    """End all reservations of everybody."""
    if not yes:
        click.confirm("End the reservations of everybody?", abort=True, err=True)

    async def call(server: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await server.post("/clear-workers", {})
        return answer

    options.show([options.ask(control, token_file, call) or {"status": "ok"}], {"status": "status"}, as_json)
