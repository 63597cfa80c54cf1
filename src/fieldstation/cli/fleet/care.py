"""`fieldstation fleet reboot | delete | clear`: what an operator does with devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fieldstation.cli.fleet import options


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
@options.as_json
def reboot(serials: tuple[str, ...], control: str, token_file: Path | None, as_json: bool) -> None:
    """Have devices recover from whatever they hang in; their queues are kept. Prints the accepted serials."""
    _command("/reboot", serials, control, token_file, as_json)


@click.command()
@click.argument("serials", nargs=-1, required=True)
@options.server
@options.as_json
def delete(serials: tuple[str, ...], control: str, token_file: Path | None, as_json: bool) -> None:
    """Forget devices that nobody holds; those still plugged in come back freshly flashed."""
    _command("/delete", serials, control, token_file, as_json)


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.server
@options.as_json
def clear(yes: bool, control: str, token_file: Path | None, as_json: bool) -> None:
    """End all reservations of everybody."""
    if not yes:
        click.confirm("End the reservations of everybody?", abort=True, err=True)

    async def call(server: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await server.post("/clear-workers", {})
        return answer

    options.show([options.ask(control, token_file, call) or {"status": "ok"}], {"status": "status"}, as_json)
