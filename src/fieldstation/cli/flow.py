"""`fieldstation flow`: serve flows, run one, be a light worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from fieldstation.core.errors import FieldstationError
from fieldstation.core.plugins import require

FILE = click.Path(path_type=Path)


class FlowEntryError(FieldstationError):
    """The flow {entry} cannot be loaded: {problem}. Write it as folder/file.py:function."""


@click.group()
def flow() -> None:
    """Orchestrate with Prefect 3, and run approved commands on small devices."""


@flow.command()
@click.option("--pool", required=True, help="Work pool to take commands from.")
@click.option("--name", help="Name of this worker.  [default: light-HOSTNAME]")
@click.option(
    "--every", "every_s", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds between looks."
)
@click.option("--state-dir", type=FILE, help="Where it remembers what runs.  [default: ~/.local/state/fieldstation]")
@click.option(
    "--allow", multiple=True, help="Pattern of an allowed command (`ls *`); repeat it. Without: any approved."
)
def worker(pool: str, name: str | None, every_s: float, state_dir: Path | None, allow: tuple[str, ...]) -> None:
    """Take approved commands from a Prefect work pool and run them. Needs no extra and no open port.

    PREFECT_API_URL is the Prefect server, FIELDSTATION_CONTROL the control server that knows what was approved.
    """
    from fieldstation.flow.light import LightWorker
    from fieldstation.flow.running import ALLOW_VARIABLE

    if allow:
        os.environ[ALLOW_VARIABLE] = ";".join(allow)
    light = LightWorker(pool, name=name, every_s=every_s, state_dir=state_dir)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: light.stop())
    light.start()
    click.echo(f"ready pool:{pool}")
    light.run()


@flow.command()
@click.argument("entry")
@click.option("--name", required=True, help="Name of the deployment.")
@click.option("--pool", help="Work pool that the flow's commands go to.")
def serve(entry: str, name: str, pool: str | None) -> None:
    """Keep the flow ENTRY (file.py:function, or `example`) deployed and run it when Prefect says so."""
    found = _load(entry)
    if pool is not None and not hasattr(found, "is_pool_flow"):
        raise FlowEntryError(entry=entry, problem="--pool needs a flow made with fieldstation.flow.flow")
    if pool is not None:
        found.serve(name=name, work_pool_name=pool)
    else:
        found.serve(name=name)


@flow.command()
@click.argument("entry")
@click.option(
    "--param", "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="Parameter of the flow; repeat it."
)
def run(entry: str, parameters: tuple[str, ...]) -> None:
    """Run the flow ENTRY (file.py:function, or `example`) here, once."""
    given = {}
    for parameter in parameters:
        key, separator, value = parameter.partition("=")
        if not separator:
            raise FlowEntryError(f"The parameter {parameter} is not NAME=VALUE.")
        given[key] = value
    state = _load(entry)(**given, return_state=True)
    said = state.message or (state.result() if state.is_completed() else None)
    click.echo(state.name if said is None else f"{state.name}: {said}")
    if not state.is_completed():
        raise SystemExit(1)


def _load(entry: str):  # type: ignore[no-untyped-def]  # a Prefect flow, which is not imported here
    require("prefect", extra="flow", feature="fieldstation flow")
    if entry == "example":
        from fieldstation.flow.serve import example_shell_command_flow

        return example_shell_command_flow
    from prefect.flows import load_flow_from_entrypoint

    if ":" not in entry:
        raise FlowEntryError(entry=entry, problem="there is no `:`")
    try:
        return load_flow_from_entrypoint(entry)
    except Exception as error:
        raise FlowEntryError(entry=entry, problem=error) from error
