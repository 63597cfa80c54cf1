"""`fieldstation fleet worker`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from fieldstation.core.plugins import require
from fieldstation.fleet.lean import import_socketio


@click.command()
@click.option("--control", metavar="URL[,URL]", help="Control servers; it stays at the one that leads.")
@click.option("--name", help="Its name, unique in the fleet (this machine's name).")
@click.option("--host", help="Address to listen on (127.0.0.1). Any but loopback needs tokens.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (8081); 0 takes a free one.")
@click.option("--url", metavar="URL", help="Where clients reach it, when that is not its own address.")
@click.option("--driver", multiple=True, metavar="NAME", help="Driver to use (pico2_ice); may be given again.")
@click.option("--simulate", type=click.IntRange(0, 1000), metavar="N", help="Host N simulated boards.")
@click.option("--twin", is_flag=True, help="They count what the bitstream really does; needs fpga-icestorm and gcc.")
@click.option("--serial", multiple=True, metavar="S", help="Serial of a simulated board; may be given again.")
@click.option("--dir", type=click.Path(path_type=Path, file_okay=False), help="Where it keeps leases and results.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML, [fleet.worker]; or the documented INI file.",
)
@click.option("--tokens", type=click.Path(path_type=Path), help="Token file for the worker's own endpoints.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token for control.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name by which browsers may call this server.")
@click.option("--tls-certificate", type=click.Path(path_type=Path, exists=True), help="PEM file: serve HTTPS.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="Its private key.")
@click.option("--insecure", is_flag=True, default=None, help="Listen on any address without tokens.")
@click.option("--log-level", help="debug, info, warning or error; as after `fieldstation` itself.")
@click.option("--log-json", is_flag=True, default=None, help="One JSON object a line.")
def worker(file: Path | None, log_level: str | None, log_json: bool | None, twin: bool, **options: Any) -> None:
    """Run a worker: it hosts the devices that are plugged into this machine.

    Prints `ready URL` when clients may come. Stops on SIGTERM and Ctrl-C; who holds a device keeps it, and what was
    not delivered is delivered after the next start.
    """
    import_socketio()
    require("socketio", extra="fleet", feature="A worker")
    from fieldstation.core import log, service
    from fieldstation.fleet import compose_worker
    from fieldstation.fleet.worker_config import worker_config

    simulate, serials = options.pop("simulate"), list(options.pop("serial"))
    drivers = list(options.pop("driver"))
    overrides = {**options, "allow_hosts": options.pop("allow_host") or None}
    overrides.pop("allow_host", None)
    config = worker_config(file=file, overrides={**overrides, "driver": drivers or None})
    if twin and simulate is None and not serials and "simulated" not in config.driver:
        raise click.UsageError("--twin is about simulated boards: give --simulate N too.")
    if simulate is not None or serials or twin:
        boards = dict(config.settings.get("simulated", {}))
        boards |= {"boards": simulate} if simulate is not None else {}
        boards |= {"serials": serials} if serials else {}
        boards |= {"answers": "twin"} if twin else {}
        names = tuple(dict.fromkeys([*drivers, "simulated"]))
        settings = {**config.settings, "simulated": boards}
        config = config.model_copy(update={"driver": names, "settings": settings})
    log.setup(log_level, as_json=log_json, file=config.log_file)
    with asyncio.Runner(loop_factory=service.new_event_loop) as runner:
        runner.run(_serve(config, compose_worker, service))


async def _serve(config: Any, compose_worker: Any, service: Any) -> None:
    host = compose_worker.worker(config)
    await service.run([host], ready_url=lambda: host.url)
