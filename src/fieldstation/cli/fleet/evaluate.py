"""`fieldstation fleet evaluate`: reserve, evaluate files with a progress bar, print the results, end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.cli.fleet import options
from fieldstation.cli.fleet.holding import chosen, tell_place
from fieldstation.cli.output import json_option
from fieldstation.core.plugins import require
from fieldstation.core.security import own_token

if TYPE_CHECKING:
    from fieldstation.fleet.client.evaluation import Result
    from fieldstation.fleet.client.session import FleetClient

HEADINGS = {"pulsecount": "pulses", "variance": "variance"}
KINDS = {"pulsecount": "PulseCountEvaluation", "variance": "VarMaxEvaluation"}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--amount", type=click.IntRange(min=1), help="How many devices to use (default 1).")
@click.option("--serial", "serials", multiple=True, help="Use this device; may be repeated.")
@click.option("--kind", type=click.Choice(sorted(KINDS)), default="pulsecount", show_default=True,
              help="What the devices measure: pulses in a second, or the variance of a waveform.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=30.0, show_default=True,
              help="Seconds without an answer after which a device is rebooted, then given up.")  # fmt: skip
@options.wait
@options.name
@options.server
@json_option
def evaluate(
    files: tuple[Path, ...],
    amount: int | None,
    serials: tuple[str, ...],
    kind: str,
    timeout_s: float,
    wait_s: float,
    name: str,
    control: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Evaluate every one of FILES (bitstreams, or .asc circuits) on every device used.

    Devices are reserved for the time of the command, and not at all when a file is missing or has the wrong size.
    Exit code 1 when an evaluation failed.
    """
    path, asked = chosen(amount, serials)
    refuse_bad(files)

    async def work() -> list[Result]:
        from fieldstation.fleet.client.session import FleetClient

        async with FleetClient(control, name, token=own_token(token_file)) as client:
            if path == "/reserve":
                held = await client.reserve(asked["amount"], kind=kind, wait_s=wait_s, on_wait=tell_place)
            else:
                held = await client.reserve_serials(asked["serials"], kind=kind, wait_s=wait_s, on_wait=tell_place)
            return await with_progress(client, kind, files, held, timeout_s=timeout_s)

    results = options.run(work())
    show(results, kind, as_json)
    if any(result.failed for result in results):
        sys.exit(1)


def refuse_bad(files: Sequence[Path]) -> None:
    """Name every file that cannot be a bitstream, before anything is reserved."""
    require("aiohttp", extra="fleet", feature="fieldstation fleet")
    from fieldstation.fleet.client.packing import BitstreamError, check

    problems = []
    for file in files:
        try:
            check(file)
        except BitstreamError as error:
            problems.append(str(error))
    if problems:
        raise click.ClickException("\n".join([*problems, "Nothing was reserved."]))


async def with_progress(
    client: FleetClient, kind: str, files: Sequence[Path], serials: Sequence[str], *, timeout_s: float
) -> list[Result]:
    """Evaluate each file on each device, drawing progress on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from fieldstation.fleet.client import evaluation

    cls = getattr(evaluation, KINDS[kind])
    evaluations = [cls(serials, file) for file in files]
    results = []
    columns = TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("evaluating", total=len(evaluations) * len(serials))
        async for result in client.evaluate(evaluations, result_timeout_s=timeout_s):
            results.append(result)
            bar.advance(task)
    order = {id(one): index for index, one in enumerate(evaluations)}
    return sorted(results, key=lambda result: (order[id(result.evaluation)], result.serial))


def show(results: Sequence[Result], kind: str, as_json: bool) -> None:
    """Print a table (or JSON) of results; a failed one shows its reason. Times are seconds since the start, and from
    sending to answer."""
    columns = {"serial": "serial", "file": "file", "value": HEADINGS[kind], "sent_s": "sent at", "took_s": "took"}
    options.show([_row(result, as_json) for result in results], columns, as_json)


def _row(result: Result, as_json: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "serial": result.serial,
        "file": str(result.evaluation.filepath) if as_json else result.evaluation.filepath.name,
        "value": None if result.failed else result.value,
        "sent_s": round(result.sent_s, 3),
        "took_s": round(result.took_s, 3),
    }
    if as_json:
        return {**row, "failed": result.failed, "reason": result.reason, "code": result.code}
    if result.failed:
        row["value"] = f"failed ({result.code}): {result.reason}" if result.code else f"failed: {result.reason}"
    return {**row, "sent_s": f"{result.sent_s:.3f} s", "took_s": f"{result.took_s:.3f} s"}
