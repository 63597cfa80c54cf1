"""Options and connections that the commands of `fieldstation pipeline` share."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fieldstation.pipeline.names import product_of as product_of  # light: no extra is imported

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from fieldstation.pipeline.plan import Plan

manifest_argument = click.argument("manifest", type=click.Path(path_type=Path), default=Path("krt.yaml"))
product_option = click.option("--product", default="", help="Product the pipeline belongs to [folder of the manifest].")
state_option = click.option("--state", "folder", type=click.Path(path_type=Path), help="Folder of its store and state.")
nats_option = click.option("--nats", "nats_url", default="", help="NATS address; by default that of the running one.")


def with_plan(manifest: Path, product: str, folder: Path, nats_url: str, use: Any) -> Any:
    """Connect to the pipeline's NATS, call `use(js, plan)`, close."""
    from fieldstation.pipeline import state
    from fieldstation.pipeline.config import Nats, nats_secrets
    from fieldstation.pipeline.manifest import load
    from fieldstation.pipeline.plan import make_plan
    from fieldstation.pipeline.wire.connection import connect

    plan = make_plan(load(manifest), product, nats_url or state.read(folder, product).nats_url)
    url = plan.processes[0].config["nats"]["url"]

    async def call() -> Any:
        settings = Nats.model_validate({"url": url, "start_timeout": 5, **nats_secrets()})
        client = await connect(settings, name="fieldstation cli")
        try:
            return await use(client.jetstream(timeout=5), plan)
        finally:
            await client.close()

    return asyncio.run(call())


def with_bucket(scope: dict[str, Any], use: Any) -> Any:
    """Call `use(bucket)` with the bucket of the scope that the options name."""
    from fieldstation.pipeline.names import bucket
    from fieldstation.pipeline.state import folder_of
    from fieldstation.pipeline.wire.stores import open_bucket

    manifest, product = scope["manifest"], product_of(scope["product"], scope["manifest"])
    if scope["process"] and not scope["workflow"]:
        raise click.UsageError("--process needs --workflow")

    async def call(js: JetStreamContext, plan: Plan) -> Any:
        version = "" if scope["everywhere"] else plan.version
        name = bucket(product, version, scope["workflow"], scope["process"])
        return await use(await open_bucket(js, name, scope["nats_url"] or "NATS"))

    return with_plan(manifest, product, folder_of(product, scope["folder"]), scope["nats_url"], call)


def with_stream(where: dict[str, Any], use: Any) -> Any:
    """Call `use(js, stream)` with the workflow's stream that the options name."""
    from fieldstation.pipeline.state import folder_of

    manifest, product = where["manifest"], product_of(where["product"], where["manifest"])

    async def call(js: JetStreamContext, plan: Plan) -> Any:
        streams = [s.name for s in plan.streams if not where["workflow"] or s.name.endswith("_" + where["workflow"])]
        if len(streams) != 1:
            raise click.UsageError("say which --workflow")
        return await use(js, streams[0])

    return with_plan(manifest, product, folder_of(product, where["folder"]), where["nats_url"], call)
