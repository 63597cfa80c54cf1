"""What a client of frame servers does: `fieldstation stream ping`, `init`, `view` and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from fieldstation.cli.output import json_option, print_json
from fieldstation.core import log
from fieldstation.core.errors import FieldstationError

FILE = click.Path(path_type=Path)


def client_options(command: Any) -> Any:
    """Add how servers are found: configuration files, or hosts."""
    for option in reversed(
        [
            click.option("--host", "hosts", multiple=True, help="Server, HOST or HOST:PORT; may be repeated."),
            click.option("--daq-config", type=FILE, help="daq_config.json with the DAQ nodes."),
            click.option("--net-config", type=FILE, help="network_config.json with port forwarding."),
            click.option("--tls/--no-tls", default=False, help="Encrypt; the system's authorities are trusted."),
            click.option("--ca", type=FILE, help="PEM file of the authority to trust; turns TLS on."),
            click.option("--log-level", default="warning", show_default=True, help="debug, info, warning or error."),
        ]
    ):
        command = option(command)
    return command


def run(options: dict[str, Any], work: Callable[[Any, list[str] | None], Awaitable[bool]]) -> None:
    """Open a client, do `work(client, hosts)` and exit 1 with one sentence when it fails."""
    import grpc

    from fieldstation.stream.client import AioDaqDataClient

    log.setup(options["log_level"])
    hosts = list(options["hosts"])
    daq_config = options["daq_config"]
    if daq_config is None:
        daq_config = {"daq_nodes": [{"ip_addr": host} for host in hosts or ["127.0.0.1"]]}

    failed: list[ConnectionError] = []

    async def main() -> bool:
        client = AioDaqDataClient(daq_config, options["net_config"], tls=options["tls"], ca=options["ca"])
        async with client:
            try:
                return await work(client, hosts or None)
            except ConnectionError as error:
                failed.append(error)  # the client itself would swallow it, as documented
        return False

    try:
        done = asyncio.run(main())
        if failed:
            raise failed[0]
    except grpc.RpcError as error:
        raise FieldstationError(f"The server refused: {error.details()} ({error.code().name})") from error
    except (ValueError, ConnectionError, FileNotFoundError) as error:
        raise FieldstationError(str(error)) from error
    except KeyboardInterrupt:
        return
    if not done:
        raise SystemExit(1)


@click.command()
@client_options
def ping(**options: Any) -> None:
    """Ping servers; exit 1 when one does not answer."""

    async def work(client: Any, hosts: list[str] | None) -> bool:
        valid = await client.get_valid_daq_hosts()
        for host in client.daq_nodes:
            click.echo(f"{host}: {'answers' if host in valid else 'no answer'}")
        return len(valid) == len(client.daq_nodes)

    run(options, work)


@click.command()
@client_options
@json_option
def hosts(as_json: bool, **options: Any) -> None:
    """List the servers of a configuration and whether each answers."""

    async def work(client: Any, _: list[str] | None) -> bool:
        status = await client.get_daq_host_status()
        if as_json:
            print_json(status)
        else:
            for target, valid in status.items():
                click.echo(f"{target}  {'answers' if valid else 'no answer'}")
        return True

    run(options, work)


@click.command()
@client_options
def reflect(**options: Any) -> None:
    """Show the services and methods that servers offer."""

    async def work(client: Any, hosts: list[str] | None) -> bool:
        from rich.console import Console

        Console().print(await client.reflect_services(hosts), highlight=False, markup=False)
        return True

    run(options, work)


@click.command()
@click.argument("hp_io_config", type=FILE)
@click.option("--timeout", default=15.0, show_default=True, help="Seconds to wait for the server.")
@client_options
def init(hp_io_config: Path, timeout: float, **options: Any) -> None:
    """Initialise servers from an hp_io_config.json: what to watch and how often."""
    from fieldstation.stream.config import load_hp_io

    config = load_hp_io(hp_io_config)

    async def work(client: Any, hosts: list[str] | None) -> bool:
        done: bool = await client.init_hp_io(hosts, config.model_dump(), timeout)
        click.echo("initialised" if done else "failed; the log above says why")
        return done

    run(options, work)


@click.command("init-sim")
@client_options
def init_sim(**options: Any) -> None:
    """Initialise servers with simulated frames; running streams are ended."""

    async def work(client: Any, hosts: list[str] | None) -> bool:
        done: bool = await client.init_sim(hosts, timeout=15.0)
        click.echo("simulating" if done else "failed; the log above says why")
        return done

    run(options, work)


def plot_options(command: Any) -> Any:
    """Add what both plots take."""
    for option in reversed(
        [
            click.option("--refresh-period", default=1.0, show_default=True, help="Seconds between two drawings."),
            click.option("--module", "modules", type=int, multiple=True, help="Only these modules."),
            click.option("--out", type=FILE, help="Draw into this PNG or GIF instead of a window."),
            click.option("--frames", type=click.IntRange(min=1), help="Stop after so many frames."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@plot_options
@client_options
def view(refresh_period: float, modules: tuple[int, ...], out: Path | None, frames: int | None, **options: Any) -> None:
    """Preview live frames of all modules, in a window or (with --out) a picture file."""
    from fieldstation.stream.plot import PanoImagePreviewer, show

    async def work(client: Any, hosts: list[str] | None) -> bool:
        previewer = PanoImagePreviewer(True, True, modules, plot_update_interval=refresh_period)
        images = client.stream_images(hosts, True, True, refresh_period, modules, wait_for_ready=True)
        return await show(previewer, images, out, frames)

    run(options, work)


@click.command()
@click.option(
    "--duration",
    "durations",
    type=float,
    multiple=True,
    default=[10, 60, 600],
    show_default=True,
    help="One histogram for each of these spans, in seconds.",
)
@plot_options
@client_options
def phdist(
    refresh_period: float,
    modules: tuple[int, ...],
    out: Path | None,
    frames: int | None,
    durations: tuple[float, ...],
    **options: Any,
) -> None:
    """Plot the live distribution of pulse heights: the brightest pixel of each event."""
    from fieldstation.stream.plot import PulseHeightDistribution, show

    async def work(client: Any, hosts: list[str] | None) -> bool:
        plot = PulseHeightDistribution(durations, modules, refresh_period)
        images = client.stream_images(hosts, False, True, -1.0, modules, wait_for_ready=True)
        return await show(plot, images, out, frames)

    run(options, work)


@click.command()
@click.argument("out", type=FILE)
@click.option("--module", "modules", type=int, multiple=True, help="Only these modules.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after so many frames.")
@click.option("--seconds", type=float, help="Stop after so many seconds.")
@click.option("--history", is_flag=True, help="Begin with what the run already holds.")
@click.option(
    "--format", "form", type=click.Choice(["pff", "zarr"]), default="pff", show_default=True, help="What to write."
)
@client_options
def record(
    out: Path,
    modules: tuple[int, ...],
    frames: int | None,
    seconds: float | None,
    history: bool,
    form: str,
    **options: Any,
) -> None:
    """Write every frame that servers stream to OUT, as a PFF run directory or a Zarr group."""
    from fieldstation.stream.record import record as write

    async def work(client: Any, hosts: list[str] | None) -> bool:
        stream = client.frames(hosts, modules=modules, every=True, history=history)
        count = await write(stream, out, form, frames, seconds)
        dropped = sum(int(counters.get("fieldstation-dropped", 0)) for counters in stream.trailers.values())
        click.echo(f"{count} frames in {out}" + (f", {dropped} were dropped by the server" if dropped else ""))
        return True

    run(options, work)


COMMANDS = (ping, hosts, reflect, init, init_sim, view, phdist, record)
