"""`fieldstation pipeline`: run a krt.yaml on this machine, look at it, talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldstation.cli.output import json_option, print_json, print_table
from fieldstation.cli.pipeline_config import config
from fieldstation.cli.pipeline_letters import dead_letters
from fieldstation.cli.pipeline_reach import (
    manifest_argument,
    nats_option,
    product_of,
    product_option,
    state_option,
    with_plan,
)
from fieldstation.core.log import mask
from fieldstation.core.plugins import require

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from fieldstation.pipeline.plan import Plan


@click.group()
def pipeline() -> None:
    """Process messages in a graph of nodes on NATS JetStream."""
    require("fieldstation.pipeline.wire", extra="pipeline", feature="fieldstation pipeline")  # keeps nats-py light
    require("nats", extra="pipeline", feature="fieldstation pipeline")
    require("pydantic", extra="pipeline", feature="fieldstation pipeline")


@pipeline.command()
@manifest_argument
@json_option
def check(manifest: Path, as_json: bool) -> None:
    """Validate a krt.yaml: every mistake with its line. Exit code 0 or 1."""
    from fieldstation.pipeline.errors import ManifestError
    from fieldstation.pipeline.manifest import load

    try:
        found = load(manifest)
    except ManifestError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": str(error.fields.get("problems", error)).splitlines()}))
            sys.exit(1)
        raise
    count = sum(len(workflow.processes) for workflow in found.workflows)
    report = {"ok": True, "version": found.version, "workflows": len(found.workflows), "processes": count}
    text = f"{manifest} is in order: {found.version}, workflows: {len(found.workflows)}, processes: {count}"
    click.echo(json.dumps(report) if as_json else text)


@pipeline.command()
@manifest_argument
@product_option
@state_option
@click.option("--nats", "nats_url", default="", help="Use this NATS server; by default one is started.")
@click.option("--port", default=0, help="Port of the NATS server that is started; 0 takes a free one.")
@click.option("--sync", default="always", show_default=True, help="How often it syncs to disk: always, or such as 10s.")
@click.option("--stream-replicas", default=1, show_default=True, help="Copies of each stream in a NATS cluster.")
@click.option("--ack-wait", default=30.0, show_default=True, help="Seconds until unfinished work is handed out again.")
@click.option("--run", "runs", multiple=True, metavar="PROCESS=FILE", help="Program of a process; repeatable.")
@click.option("--credentials", default="", help="A .creds file for that server.")
@click.option("--ca", default="", help="CA certificate of that server.")
@click.option("--provision", is_flag=True, help="Make streams, consumers, buckets and stores on --nats, and end.")
def up(
    manifest: Path,
    product: str,
    folder: Path | None,
    nats_url: str,
    port: int,
    sync: str,
    stream_replicas: int,
    ack_wait: float,
    runs: tuple[str, ...],
    credentials: str,
    ca: str,
    provision: bool,
) -> None:
    """Run the pipeline of a krt.yaml on this machine until SIGTERM: NATS, streams, processes under supervision.

    Prints `ready <nats url>` once all processes are. A process is the file PROCESS.py beside the krt.yaml, or what
    --run says. User name and password of a NATS server may stand in its address, or in the environment
    (KAI_NATS_USER, KAI_NATS_PASSWORD, KAI_NATS_TOKEN).
    """
    from fieldstation.core.service import STOP_DEADLINE_S, Announcement, run
    from fieldstation.pipeline.config import nats_secrets
    from fieldstation.pipeline.local import PipelineService, PipelineSettings
    from fieldstation.pipeline.state import folder_of

    for value in runs:
        if "=" not in value:
            raise click.BadParameter(f"{value!r} must be PROCESS=FILE", param_hint="--run")
    name = product_of(product, manifest)
    service = PipelineService(
        PipelineSettings(
            manifest,
            name,
            folder_of(name, folder),
            nats=nats_url,
            port=port,
            sync_interval=sync,
            replicas=stream_replicas,
            ack_wait_s=ack_wait,
            run=dict(value.split("=", 1) for value in runs),
            credentials={
                key: value for key, value in {**nats_secrets(), "credentials": credentials, "ca": ca}.items() if value
            },
        )
    )
    if provision:
        if not nats_url:
            raise click.UsageError("--provision needs --nats: a server that goes on running")
        asyncio.run(service.provision())
        click.echo(f"{name} is provisioned on {mask(nats_url)}")
        return
    told = Announcement(service.until_ready, lambda: service.url)  # which is after it runs
    asyncio.run(run([service, told], stop_deadline_s=STOP_DEADLINE_S + 8))


@pipeline.command()
@manifest_argument
@product_option
@state_option
@click.option("--delete", is_flag=True, help="Delete its streams, buckets and stores too, unless something is unread.")
@click.option("--purge", is_flag=True, help="Delete them with unread messages and dead letters.")
def down(manifest: Path, product: str, folder: Path | None, delete: bool, purge: bool) -> None:
    """Stop the pipeline that runs on this machine; messages stay for the next `up` unless --delete."""
    from fieldstation.pipeline import state
    from fieldstation.pipeline.wire.provision import remove

    name = product_of(product, manifest)
    place = state.folder_of(name, folder)
    found = state.read(place, name)
    if delete or purge:

        async def clear(js: JetStreamContext, plan: Plan) -> list[str]:
            return await remove(js, plan, purge=purge)

        gone = with_plan(manifest, name, place, "", clear)
        click.echo(f"deleted {', '.join(gone)}" if gone else "nothing to delete")
    if state.is_alive(found.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + 25
    while state.is_alive(found.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    state.remove(place)
    click.echo(f"{name} is down")


@pipeline.command()
@manifest_argument
@product_option
@state_option
@nats_option
@click.option("--interval", default=1.0, show_default=True, help="Seconds between the two looks that give the rates.")
@click.option("--graph", is_flag=True, help="Draw the graph instead of a table.")
@json_option
def status(
    manifest: Path, product: str, folder: Path | None, nats_url: str, interval: float, graph: bool, as_json: bool
) -> None:
    """Show rates, lag, redeliveries and dead letters of each process."""
    from fieldstation.pipeline import state as states
    from fieldstation.pipeline.errors import PipelineNotRunningError
    from fieldstation.pipeline.status import ProcessStatus, draw, rows_of
    from fieldstation.pipeline.wire.inspect import readings

    name = product_of(product, manifest)
    place = states.folder_of(name, folder)

    async def look(js: JetStreamContext, plan: Plan) -> list[ProcessStatus]:
        before = await readings(js, plan)
        await asyncio.sleep(interval)
        after = await readings(js, plan)
        try:
            replicas = states.read(place, name).replicas
        except PipelineNotRunningError:
            replicas = []
        return rows_of(plan, before, after, interval, replicas)

    rows = with_plan(manifest, name, place, nats_url, look)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
    elif graph:
        for workflow in dict.fromkeys(row.workflow for row in rows):
            click.echo(f"{workflow}:")
            for line in draw([row for row in rows if row.workflow == workflow]):
                click.echo(f"  {line}")
    else:
        print_table(
            ["workflow", "process", "type", "replicas", "rate/s", "lag", "in work", "redelivered", "dead", "restarts"],
            [
                [
                    r.workflow,
                    r.process,
                    r.type,
                    r.replicas,
                    r.rate,
                    r.lag,
                    r.in_work,
                    r.redelivered,
                    r.dead_letters,
                    r.restarts,
                ]
                for r in rows
            ],
        )


@pipeline.command()
@click.argument("what", metavar="FILE|NAME")
def node(what: str) -> None:
    """Run one node: a Python file with @task, @exit or @trigger (or its own main), or a registered node's name.

    Its configuration comes from app.yaml, config.yaml and KAI_* variables, as its manager gives them.
    """
    from fieldstation.pipeline import discover
    from fieldstation.pipeline.compose import main

    discover.run(what, main)


@pipeline.command()
@manifest_argument
@click.argument("process")
@click.argument("payload")
@product_option
@state_option
@nats_option
@click.option("--workflow", default="", help="Workflow, when the name is in several.")
@click.option("--channel", default="", help="Channel of the process.")
@click.option("--type", "kind", default="google.protobuf.StringValue", show_default=True, help="Payload message type.")
@click.option("--request-id", default="", help="Request id; a new one by default.")
@click.option("--count", default=1, show_default=True, help="How many times.")
def send(
    manifest: Path,
    process: str,
    payload: str,
    product: str,
    folder: Path | None,
    nats_url: str,
    workflow: str,
    channel: str,
    kind: str,
    request_id: str,
    count: int,
) -> None:
    """Publish PAYLOAD (text, or JSON of a message type) as if PROCESS had sent it."""
    from fieldstation.pipeline.model import Message
    from fieldstation.pipeline.names import WorkflowNames
    from fieldstation.pipeline.state import folder_of
    from fieldstation.pipeline.wire import codec

    name = product_of(product, manifest)
    message = codec.from_text(kind, payload)

    async def publish(js: JetStreamContext, plan: Plan) -> list[str]:
        found = [p for p in plan.processes if p.name == process and workflow in ("", p.workflow)]
        if len(found) != 1:
            raise click.UsageError(f"there are {len(found)} processes named {process!r}; say --workflow")
        subject = WorkflowNames(plan.product, plan.version, found[0].workflow).output(process, channel)
        ids = []
        for _ in range(count):
            ids.append(request_id or str(uuid.uuid4()))
            body = codec.encode(Message(ids[-1], codec.pack(message), "", process))
            await js.publish(subject, body)
        return ids

    for sent in with_plan(manifest, name, folder_of(name, folder), nats_url, publish):
        click.echo(sent)


@pipeline.command()
@manifest_argument
@product_option
@click.option("--kubernetes", is_flag=True, required=True, help="Kubernetes manifests, the only form there is.")
@click.option("--nats", "nats_url", default="nats://nats:4222", show_default=True, help="NATS inside the cluster.")
@click.option("--output", type=click.Path(path_type=Path), help="File to write; standard output by default.")
def export(manifest: Path, product: str, kubernetes: bool, nats_url: str, output: Path | None) -> None:
    """Write the pipeline as Kubernetes manifests, for a cluster that has NATS."""
    from fieldstation.pipeline.kubernetes import manifests
    from fieldstation.pipeline.manifest import load
    from fieldstation.pipeline.plan import make_plan

    text = manifests(make_plan(load(manifest), product_of(product, manifest), nats_url))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)


pipeline.add_command(config)
pipeline.add_command(dead_letters)
