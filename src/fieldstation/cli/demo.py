"""`fieldstation demo`: everything, simulated, on this machine."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldstation.cli.fleet import options
from fieldstation.core.plugins import require

if TYPE_CHECKING:
    from fieldstation.fleet.client.evaluation import Result


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--once", is_flag=True, help="Run the experiment, print its report, exit: 0 when all went well.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port of the control server; another one is taken when it is in use.")  # fmt: skip
@click.option("--dir", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="Keep database and logs here; by default they are deleted at the end.")  # fmt: skip
def demo(files: tuple[Path, ...], once: bool, port: int, folder: Path | None) -> None:
    """Start a control server and a worker with four simulated boards, reserve two, evaluate circuits on them.

    FILES are bitstreams; without them some are made. Without --once everything keeps running until Ctrl-C.
    """
    require("aiohttp", extra="fleet", feature="The demonstration")
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fieldstation-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        failed = options.run(_demo(folder, [file.resolve() for file in files], port, once))
    sys.exit(1 if failed else 0)


async def _demo(folder: Path, files: list[Path], port: int, once: bool) -> bool:
    from fieldstation.site import demo as site

    click.echo("Starting a control server and a worker with four simulated boards.", err=True)
    async with site.fleet(folder, port=site.free_port(port)) as running:
        results = await _experiment(running.url, files or site.make_bitstreams(folder / "circuits"))
        if not once:
            click.echo(f"ready {running.url}")
            click.echo(f"The panel is at {running.url}/ ; Ctrl-C ends everything.", err=True)
            await asyncio.Event().wait()
    return any(result.failed for result in results)


async def _experiment(url: str, files: list[Path]) -> list[Result]:
    from fieldstation.cli.fleet.evaluate import show, with_progress
    from fieldstation.fleet.client.session import FleetClient

    client, free = FleetClient(url, "demo"), asyncio.Event()
    # The worker accepts clients before control has heard of its boards, so their news is waited for.
    client.events.subscribe(lambda event: free.set() if event.contents.get("amount", 0) >= 2 else None)
    async with client:
        async with asyncio.timeout(60):
            await free.wait()
        held = await client.reserve(2, wait_s=60)
        click.echo(f"Reserved {', '.join(held)}; evaluating {len(files)} circuits on both.", err=True)
        results = await with_progress(client, "pulsecount", files, held, timeout_s=30)
        show(results, "pulsecount", as_json=False)
        ended = await client.end(held)
        click.echo(f"Ended the reservations of {', '.join(ended)}.", err=True)
    return results
