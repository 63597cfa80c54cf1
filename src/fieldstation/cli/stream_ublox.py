"""`fieldstation stream ublox`: configure and watch a u-blox ZED-F9T timing receiver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from fieldstation.core import log
from fieldstation.core.errors import FieldstationError
from fieldstation.core.plugins import load, require

FILE = click.Path(path_type=Path)


@click.group()
def ublox() -> None:
    """Configure and watch u-blox ZED-F9T timing receivers (the UbloxControl service)."""
    require("pyubx2", extra="ublox", feature="fieldstation stream ublox")


@ublox.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=50051, show_default=True, type=click.IntRange(0, 65535), help="TCP port, 0: a free one."
)
@click.option("--token-file", type=FILE, help="Hashed tokens; every call then needs one.")
@click.option("--insecure", is_flag=True, help="Listen beyond loopback without tokens.")
@click.option("--simulate", is_flag=True, help="Start a simulated receiver and print its device.")
def serve(host: str, port: int, token_file: Path | None, insecure: bool, simulate: bool) -> None:
    """Serve one receiver, which a client names when it initialises."""
    from fieldstation.core import service
    from fieldstation.stream.compose import UbloxServer
    from fieldstation.stream.config import load_server

    log.setup("info")
    settings = {"host": host, "port": port, "token_file": token_file, "insecure": insecure}
    config = load_server(None, settings)
    if simulate:
        click.echo(f"simulated receiver at {load('sources', 'f9t')().device}")

    async def main() -> None:
        server = UbloxServer(config)
        await service.run([server], ready_url=lambda: f"http://{server.url}")

    asyncio.run(main())


def _run(hosts: tuple[str, ...], work: Callable[[Any], Awaitable[None]]) -> None:
    import grpc

    from fieldstation.stream.ublox_client import AioUbloxControlClient

    async def main() -> None:
        async with AioUbloxControlClient(hosts or ["127.0.0.1:50051"]) as client:
            await work(client)

    try:
        asyncio.run(main())
    except grpc.RpcError as error:
        raise FieldstationError(f"The server refused: {error.details()} ({error.code().name})") from error


HOSTS = click.option("--hosts", multiple=True, help="Server as HOST:PORT; may be repeated.  [default: 127.0.0.1:50051]")


@ublox.command()
@click.argument("device")
@HOSTS
@click.option("--config", "config_file", type=FILE, help="JSON5 with the settings; f9t_chips entries are merged in.")
@click.option("--force", is_flag=True, help="End streams that are active.")
def init(device: str, hosts: tuple[str, ...], config_file: Path | None, force: bool) -> None:
    """Write the settings to the receiver at DEVICE (on the server's machine) and verify them."""
    from fieldstation.stream.ublox_config import chip_config

    values: dict[str, Any] = {}
    if config_file is not None:
        try:
            values = require("json5", extra="ublox", feature="JSON5").loads(config_file.read_text())
        except (OSError, ValueError) as error:
            raise FieldstationError(f"The configuration file {config_file} cannot be read: {error}") from error
    config = chip_config(values, device=device) | {"device": device}

    async def work(client: Any) -> None:
        await client.init_f9t(None, config, force=force)
        click.echo("initialised")

    _run(hosts, work)


@ublox.command()
@HOSTS
@click.option("--patterns", multiple=True, help="Regular expression for the start of an identity, such as TIM-TP.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many messages.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def capture(hosts: tuple[str, ...], patterns: tuple[str, ...], count: int | None, as_json: bool) -> None:
    """Print the messages of receivers as they arrive."""

    async def work(client: Any) -> None:
        seen = 0
        async for message in client.capture_ublox(None, patterns):
            if as_json:
                message |= {
                    "payload": message["payload"].hex(),
                    "pkt_unix_timestamp": str(message["pkt_unix_timestamp"]),
                }
                click.echo(json.dumps(message))
            else:
                fields = " ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                                  for key, value in message["parsed_data"].items())  # fmt: skip
                click.echo(f"{message['host']} {message['name']} {fields}")
            seen += 1
            if seen == count:
                return

    _run(hosts, work)


@ublox.command()
@HOSTS
def ping(hosts: tuple[str, ...]) -> None:
    """Tell which servers offer UbloxControl; exit 1 when one does not."""
    bad: list[str] = []

    async def work(client: Any) -> None:
        for host in client.hosts:
            answers = await client.ping(host)
            click.echo(f"{host}: {'answers' if answers else 'no answer'}")
            if not answers:
                bad.append(host)

    _run(hosts, work)
    if bad:
        raise SystemExit(1)
