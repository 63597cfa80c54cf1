"""`python -m fieldstation.stream.cli DAQ_CFG NET_CFG --flags`: the documented command line, flag for flag."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console

from fieldstation.core import log
from fieldstation.core.errors import FieldstationError
from fieldstation.core.service import until_signalled
from fieldstation.stream.client import AioDaqDataClient
from fieldstation.stream.config import read_json

_log = logging.getLogger(__name__)
_console = Console(highlight=False, markup=False)


def parser() -> argparse.ArgumentParser:
    """Return the documented arguments."""
    found = argparse.ArgumentParser(prog="python -m fieldstation.stream.cli", description=__doc__)
    add = found.add_argument
    add("daq_config_path", help="path to daq_config.json file for the current observing run")
    add("net_config_path", help="path to network_config.json file for the current observing run")
    add("--host", help="DaqData server hostname or IP address.")
    add("--ping", action="store_true", help="ping the specified host")
    add("--list-hosts", action="store_true", help="list available DAQ node hosts")
    add("--reflect-services", action="store_true", help="list available gRPC services on the DAQ node")
    add("--init", metavar="CFG_PATH", help="initialize the hp_io thread with CFG_PATH='/path/to/hp_io_config.json'")
    add("--init-sim", action="store_true", help="initialize the hp_io thread to track a simulated run directory")
    add("--plot-view", action="store_true", help="whether to create a live data previewer")
    add("--plot-phdist", action="store_true", help="whether to create a live pulse-height distribution")
    add("--plot-speed", action="store_true", help="stream everything and print packets per second")
    add("--refresh-period", type=float, default=1.0, help="period between plot refresh events (in seconds)")
    add("--module-ids", nargs="*", type=int, default=[], help="whitelist of module ids; empty: all modules")
    add("--log-level", choices=["debug", "info", "warning", "error", "critical"], default="info")
    return found


async def run(options: argparse.Namespace) -> None:
    """Do what the flags say, in the documented order."""
    if options.ping and not options.host:
        raise ValueError("--ping needs --host")
    network = None if options.net_config_path in ("", "None") else options.net_config_path
    failed: list[ConnectionError] = []
    async with AioDaqDataClient(options.daq_config_path, network, log_level=logging.WARNING) as client:
        try:
            await _act(client, options)
        except ConnectionError as error:
            failed.append(error)  # the client itself would swallow it, as documented
    if failed:
        raise failed[0]


async def _act(client: AioDaqDataClient, options: argparse.Namespace) -> None:
    if options.ping:
        answer = "success" if await client.ping(options.host) else "failed"
        _console.print(f"PING host={options.host!r}: {answer}")
    if options.list_hosts:
        _console.print("DAQ hosts (connection target: answers):")
        _console.print(await client.get_daq_host_status())
    plotting = options.plot_view or options.plot_phdist or options.plot_speed
    if plotting and options.host and options.host not in client.valid_daq_hosts:
        raise ValueError(f"{options.host} is not a valid host; valid are {list(client.valid_daq_hosts)}")
    if options.reflect_services:
        _console.print("Services:")
        _console.print(await client.reflect_services(options.host))
    if options.init:
        config = await asyncio.to_thread(read_json, Path(options.init))
        _console.print(f"init: {'success' if await client.init_hp_io(options.host, config, 15.0) else 'failed'}")
    if options.init_sim:
        _console.print(f"init_sim: {'success' if await client.init_sim(options.host, timeout=15.0) else 'failed'}")
    plots = _plots(client, options)
    try:
        async with asyncio.TaskGroup() as group:
            for plot in plots:
                group.create_task(_as_task(plot))
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def _as_task(work: Awaitable[Any]) -> None:
    await work


def _plots(client: AioDaqDataClient, options: argparse.Namespace) -> list[Awaitable[Any]]:
    modules, period = options.module_ids, options.refresh_period
    work: list[Awaitable[Any]] = []
    if options.plot_view or options.plot_phdist:
        from fieldstation.stream.plot import PanoImagePreviewer, PulseHeightDistribution, show

        if options.plot_view:
            images = client.stream_images(options.host, True, True, period, modules, wait_for_ready=True)
            work.append(show(PanoImagePreviewer(True, True, modules, plot_update_interval=period), images, None, None))
        if options.plot_phdist:
            images = client.stream_images(options.host, False, True, -1.0, modules, wait_for_ready=True)
            work.append(show(PulseHeightDistribution((10, 60, 600), modules, period), images, None, None))
    if options.plot_speed:
        work.append(_speed(client, options))
    return work


async def _speed(client: AioDaqDataClient, options: argparse.Namespace) -> None:
    count, since = 0, time.monotonic()
    async for _ in client.stream_images(options.host, True, True, -1.0, options.module_ids, parse_pano_images=False):
        count += 1
        elapsed = time.monotonic() - since
        if elapsed >= 1:
            _console.print(f"{count / elapsed:.0f} packets/s")
            count, since = 0, time.monotonic()


def main() -> None:
    """Parse the command line; failures are one sentence and exit code 1."""
    options = parser().parse_args()
    log.setup(options.log_level)

    async def work() -> None:
        await until_signalled(asyncio.create_task(run(options)))

    try:
        asyncio.run(work())
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except (FieldstationError, ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
