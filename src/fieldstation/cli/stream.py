"""`fieldstation stream`: serve frames, and everything a client can do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from fieldstation.core import log
from fieldstation.core.plugins import require


@click.group()
def stream() -> None:
    """Stream camera frames live from acquisition files."""
    require("grpc", extra="stream", feature="fieldstation stream")
    require("pydantic", extra="stream", feature="fieldstation stream")


@stream.command()
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port, 0 for a free one. [default: 50051]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML or daq_data_server_config.json.")
@click.option("--data-dir", help="Follow this data directory from the start.")
@click.option("--simulate", is_flag=True, default=None, help="Start with simulated frames.")
@click.option("--interval", "update_interval_seconds", type=float, help="hp_io interval in seconds. [default: 0.1]")
@click.option("--unix-socket", "unix_domain_socket", help="Second listener for local users, unix:///path.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Hashed tokens; every call then needs one.")
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="PEM certificate chain: turns TLS on.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM key of the certificate.")
@click.option("--tls-client-ca", type=click.Path(path_type=Path), help="Only clients with a certificate of this CA.")
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond loopback without tokens.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Loopback port for /metrics.")
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning or error.")
def serve(config_file: Path | None, log_level: str, **overrides: Any) -> None:
    """Serve frames to DaqData clients.

    Unmodified remote clients know neither tokens nor TLS: for them use --host 0.0.0.0 --insecure.
    """
    from fieldstation.core import service
    from fieldstation.stream.compose import StreamServer
    from fieldstation.stream.config import load_server

    log.setup(log_level)
    config = load_server(config_file, overrides)

    async def main() -> None:
        server = StreamServer(config)
        await service.run([server], ready_url=lambda: f"http://{server.url}")

    asyncio.run(main())
