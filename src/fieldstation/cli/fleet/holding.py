"""`fieldstation fleet reserve | extend | end`: reservations without a socket, which run until they end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from fieldstation.cli.fleet import options
from fieldstation.cli.output import json_option

ROWS = {"serial": "serial", "url": "worker", "until": "until"}

_for = click.option(
    "--for", "for_s", type=click.FloatRange(min=0, min_open=True), help="How many seconds from now it lasts."
)


@click.command()
@click.argument("amount", type=click.IntRange(min=1), required=False)
@click.option("--serial", "serials", multiple=True, help="Reserve this device; may be repeated.")
@click.option("--kind", default="pulsecount", show_default=True, help="What the devices are to do.")
@_for
@options.wait
@options.name
@options.server
@json_option
def reserve(
    amount: int | None,
    serials: tuple[str, ...],
    kind: str,
    for_s: float | None,
    wait_s: float,
    name: str,
    control: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Reserve AMOUNT devices, or those named with --serial, all or none.

    The reservation lasts until its end or until `fleet end`. The lease that commands need is shown only now, in the
    JSON output; to evaluate files, `fleet evaluate` reserves by itself.
    """
    path, asked = chosen(amount, serials)
    if for_s is not None:
        asked["for_s"] = for_s

    async def call(server: Any) -> list[dict[str, Any]]:
        from fieldstation.fleet.client.reserving import ask_for

        arguments = {**asked, "name": name, "kind": kind, "args": {}}
        held = await ask_for(server, path, arguments, wait_s=wait_s, on_wait=tell_place)
        return [
            {
                "serial": one.row.serial,
                "url": one.address,
                "until": one.row.until.isoformat(timespec="seconds"),
                "fence": one.row.fence,
                "lease": one.row.token,
            }
            for one in held
        ]

    options.show(options.ask(control, token_file, call), ROWS, as_json)


def chosen(amount: int | None, serials: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Return the endpoint and its argument for an amount, or for serials."""
    if serials and amount is not None:
        raise click.UsageError("Say how many devices, or which ones with --serial, not both.")
    if serials:
        return "/reserveserials", {"serials": list(serials)}
    return "/reserve", {"amount": 1 if amount is None else amount}


def tell_place(place: Any) -> None:
    """Write the reason why we wait."""
    when = "" if place.estimate_s is None else f", free in about {place.estimate_s:.0f} s"
    sys.stderr.write(f"waiting, place {place.position} in the queue{when}: {place.reason}\n")


@click.command()
@click.argument("serials", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything under the client name.")
@_for
@options.name
@options.server
@json_option
def extend(
    serials: tuple[str, ...],
    everything: bool,
    for_s: float | None,
    name: str,
    control: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Give reservations their full time again; prints the extended serials. None ends sooner by that."""
    more = {} if for_s is None else {"for_s": for_s}
    _change("extend", serials, everything, name, control, token_file, as_json, more)


@click.command()
@click.argument("serials", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything under the client name.")
@options.name
@options.server
@json_option
def end(
    serials: tuple[str, ...], everything: bool, name: str, control: str, token_file: Path | None, as_json: bool
) -> None:
    """End reservations; prints the ended serials. An operator ends other people's with their --name."""
    _change("end", serials, everything, name, control, token_file, as_json)


def _change(
    what: str,
    serials: tuple[str, ...],
    everything: bool,
    name: str,
    control: str,
    token_file: Path | None,
    as_json: bool,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    if bool(serials) == everything:
        raise click.UsageError("Name the serials, or say --all.")

    async def call(server: Any) -> list[str]:
        arguments: dict[str, Any] = {"name": name, **more}
        if not everything:
            arguments["serials"] = list(serials)
        done: list[str] = await server.post(f"/{what}all" if everything else f"/{what}", arguments)
        return done

    done = options.ask(control, token_file, call)
    options.show([{"serial": serial} for serial in done], {"serial": "serial"}, as_json, f"nothing to {what}")
