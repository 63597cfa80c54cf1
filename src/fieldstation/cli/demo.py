"""`fieldstation demo`: everything, simulated, on this machine."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.core.errors import MissingExtraError
from fieldstation.core.service import until_signalled

if TYPE_CHECKING:
    from fieldstation.site.demo.run import Report

# What the demonstration runs on: extra -> a package that only it brings.
NEEDS = {"fleet": "aiohttp", "station": "nats", "stream": "grpc", "pipeline": "yaml", "plots": "matplotlib",
         "parquet": "pyarrow"}  # fmt: skip

HARD_END_S = 60.0  # the station may have something to send


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--once", is_flag=True, help="Answer the approval, check every count, print the report, exit 0 or 1.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port of the panel and the control server; another one is taken when it is in use.")  # fmt: skip
@click.option("--dir", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="Keep the site and its report here; by default they are deleted at the end.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, help="Go on evaluating for so long.")
def demo(files: tuple[Path, ...], once: bool, port: int, folder: Path | None, seconds: float) -> None:
    """Run a whole site with simulated hardware, and an experiment on it.

    Two boards are reserved and evaluate circuits (FILES, or six that are made) while a telescope streams and a
    weather station reports; a pipeline joins all of it into one table; the report waits for an approval. Without
    --once everything then keeps running until Ctrl-C.
    """
    for extra, package in NEEDS.items():  # looked for, not imported: each is another process' business
        if find_spec(package) is None:
            wanted = extra if extra in ("plots", "parquet") else "all"
            raise MissingExtraError(feature="The demonstration", extra=wanted)
    from fieldstation.site.demo.run import Wishes, run

    logging.getLogger("fieldstation.fleet.client").setLevel(logging.WARNING)  # its news are on the panel
    with ExitStack() as stack:
        kept = folder is not None
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fieldstation-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        wishes = Wishes(folder.resolve(), port, once, seconds, tuple(file.resolve() for file in files))
        ok = asyncio.run(_until_stopped(run(wishes, lambda t: click.echo(t, err=True), lambda r: show(r, kept))))
    if ok is None:
        click.echo("fieldstation: stopped", err=True)
        sys.exit(130)
    sys.exit(0 if ok else 1)


async def _until_stopped(work: Coroutine[Any, Any, bool]) -> bool | None:
    """Await the demonstration; None when a signal ended it."""
    found: list[bool] = []

    async def main() -> None:
        found.append(await work)

    await until_signalled(asyncio.create_task(main()), hard_end_s=HARD_END_S)
    return found[0] if found else None


def show(report: Report, kept: bool) -> None:
    """Print the table of results, the equations, and where the report is for how long."""
    from fieldstation.cli.fleet.evaluate import show as table

    table(
        sorted(report.results[-48:], key=lambda r: (str(r.evaluation.filepath), r.serial)), "pulsecount", as_json=False
    )
    click.echo("")
    for check in report.checks:
        click.echo(f"{'ok ' if check.ok else 'NOT'}  {check.name:<12} {check}")
    click.echo(f"The report is {report.files}" + ("" if kept else " until the end; --dir keeps it"))
