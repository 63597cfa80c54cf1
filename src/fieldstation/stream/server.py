"""The frame server as a process: `fieldstation stream serve` and `python -m fieldstation.stream.server`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from fieldstation.core import log, service
from fieldstation.core.errors import FieldstationError
from fieldstation.stream.compose import StreamServer
from fieldstation.stream.config import load_server


def main(config_file: Path | None, log_level: str | None, overrides: dict[str, Any]) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    log.setup(log_level)
    config = load_server(config_file, overrides)

    async def serve() -> None:
        server = StreamServer(config)
        scheme = "https" if config.tls_certificate else "http"
        await service.run([server], ready_url=lambda: f"{scheme}://{server.url}")

    asyncio.run(serve())


def _command_line() -> None:
    parser = argparse.ArgumentParser(prog="python -m fieldstation.stream.server", description=__doc__)
    parser.add_argument("--config", type=Path, help="TOML, or daq_data_server_config.json")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="TCP port (50051)")
    parser.add_argument("--insecure", action="store_true", default=None, help="listen beyond loopback without tokens")
    options = parser.parse_args()
    try:
        main(options.config, "info", {"host": options.host, "port": options.port, "insecure": options.insecure})
    except FieldstationError as error:
        sys.exit(f"fieldstation: {error}")


if __name__ == "__main__":
    _command_line()
