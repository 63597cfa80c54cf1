"""`fieldstation stream`: the group and its servers; what clients do is in `stream_client`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from fieldstation.cli import stream_client, stream_files, stream_ublox
from fieldstation.core import log
from fieldstation.core.plugins import require

FILE = click.Path(path_type=Path)


@click.group()
@click.pass_context
def stream(context: click.Context) -> None:
    """Stream camera frames live from acquisition files."""
    # What only writes files is spared the megabytes.
    require(
        "numpy" if context.invoked_subcommand == "simulate" else "grpc", extra="stream", feature="fieldstation stream"
    )
    require("pydantic", extra="stream", feature="fieldstation stream")


def _server_options(command: Any) -> Any:
    """Add what every frame server takes."""
    for option in reversed(
        [
            click.option("--host", help="Address to listen on.  [default: 127.0.0.1]"),
            click.option("--port", type=click.IntRange(0, 65535), help="TCP port, 0 for a free one.  [default: 50051]"),
            click.option("--config", "config_file", type=FILE, help="TOML, or daq_data_server_config.json."),
            click.option("--unix-socket", "unix_domain_socket", help="Second listener for local users, unix:///path."),
            click.option("--token-file", type=FILE, help="Hashed tokens; every call then needs one."),
            click.option("--tls-certificate", type=FILE, help="PEM certificate chain; turns TLS on."),
            click.option("--tls-key", type=FILE, help="PEM key of the certificate."),
            click.option("--tls-client-ca", type=FILE, help="Only clients with a certificate of this CA get in."),
            click.option("--insecure", is_flag=True, default=None, help="Listen beyond loopback without tokens."),
            click.option("--metrics-port", type=click.IntRange(0, 65535), help="Loopback port for /metrics."),
            click.option("--log-level", help="debug, info, warning or error; as after `fieldstation` itself."),
        ]
    ):
        command = option(command)
    return command


@stream.command()
@click.option("--data-dir", help="Follow this data directory from the start, without an init.")
@click.option("--simulate", is_flag=True, default=None, help="Start with simulated frames.")
@click.option("--interval", "update_interval_seconds", type=float, help="hp_io interval, seconds.  [default: 0.1]")
@_server_options
def serve(config_file: Path | None, log_level: str | None, **overrides: Any) -> None:
    """Serve frames to DaqData clients.

    Unmodified remote clients know neither tokens nor TLS: for them use --host 0.0.0.0 --insecure.
    """
    from fieldstation.stream.server import main

    main(config_file, log_level, overrides)


@stream.command()
@click.argument("run_dir", type=FILE)
@click.option("--speed", type=float, default=1.0, show_default=True, help="1 is real time; 0 as fast as it goes.")
@click.option("--loop", is_flag=True, help="Begin again at the end.")
@_server_options
def replay(
    run_dir: Path, speed: float, loop: bool, config_file: Path | None, log_level: str | None, **overrides: Any
) -> None:
    """Serve a recorded run: its frames at their own pace, through the same server."""
    from fieldstation.stream.server import main

    overrides |= {"replay_dir": str(run_dir), "replay_speed": speed, "replay_loop": loop}
    main(config_file, log_level, overrides)


@stream.command()
@click.argument("data_dir", type=FILE)
@click.option(
    "--module",
    "modules",
    type=click.IntRange(0, 65535),
    multiple=True,
    default=[1],
    show_default=True,
    help="A module id.",
)
@click.option(
    "--product",
    "products",
    type=click.Choice(["img8", "img16", "ph256", "ph1024"]),
    multiple=True,
    default=["img16", "ph256"],
    show_default=True,
    help="What each module records.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Frames/s.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after so many of each product.")
@click.option("--max-file-size-mb", type=float, default=0.0, show_default=True, help="Roll-over size, 0: none.")
@click.option("--from", "archive", type=FILE, help="Replay the frames of recorded PFF files in this folder.")
@click.option("--damage", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of damaged frames.")
def simulate(data_dir: Path, **options: Any) -> None:
    """Write a run as Hashpipe does: a stand-in for the acquisition software, under its process name."""
    from fieldstation.core.plugins import load

    log.setup()
    asyncio.run(load("sources", "hashpipe")(data_dir, **options))


for _command in (*stream_client.COMMANDS, *stream_files.COMMANDS, stream_ublox.ublox):
    stream.add_command(_command)
