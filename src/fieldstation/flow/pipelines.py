"""The task that sends a message through a pipeline and waits for what comes out. Needs the extra `pipeline` too."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from prefect import task

from fieldstation.core.children import die_with_parent, end
from fieldstation.core.errors import DeadlineError
from fieldstation.core.plugins import require
from fieldstation.flow.errors import BadRequestError, PipelineStartError

if TYPE_CHECKING:
    from fieldstation.pipeline.manifest import Manifest
    from fieldstation.pipeline.names import WorkflowNames

STOP_S = 25.0  # `pipeline up` lets its nodes finish what they have in hand


@task(name="Run Pipeline")
def run_pipeline(
    manifest: str | Path,
    message: Any,
    *,
    timeout_s: float = 600.0,
    workflow: str = "",
    process: str = "",
    exits: str = "",
    channel: str = "",
    product: str = "",
    folder: str | Path | None = None,
    nats: str = "",
    run: Mapping[str, str] | None = None,
) -> Any:
    """Send `message` through the pipeline of a krt.yaml and return the first matching output of its exit.

    The pipeline that runs on this machine is used; without one it is started for this call and stopped afterwards
    (unfinished messages stay for the next start). With `nats` (an address) it runs elsewhere and nothing is started.
    `message` goes out as if the workflow's trigger had sent it: text, bytes, a number, a dict, a list, or a protobuf
    message; the answer comes back in the same forms. `workflow`, `process` and `exits` are needed only where the
    manifest leaves a choice. `product`, `folder` and `run` are those of `fieldstation pipeline up`.

    DeadlineError when nothing comes within `timeout_s` seconds, starting included (an exit that returns nothing
    answers nothing); RequestFailedError when a process gave the message up; PipelineStartError, BadRequestError.
    """
    require("nats", extra="pipeline", feature="run_pipeline")
    from fieldstation.pipeline import names, state
    from fieldstation.pipeline.manifest import load
    from fieldstation.pipeline.wire import values

    path = Path(manifest).resolve()
    name = names.product_of(product, path)
    found, sender, ends = route(load(path), name, workflow, process, exits)
    payload = values.to_payload(message)
    place = state.folder_of(name, Path(folder) if folder else None)

    async def whole() -> Any:
        try:
            async with asyncio.timeout(timeout_s) as limit, _address(path, name, place, nats, run or {}) as url:
                return values.from_payload((await _ask(url, found, sender, ends, payload, channel)).payload)
        except TimeoutError as error:
            if not limit.expired():
                raise
            what = f"an output of {' or '.join(ends)} in the pipeline {name}"
            raise DeadlineError(what=what, deadline_s=f"{timeout_s:g}") from error

    return asyncio.run(whole())


def route(
    manifest: Manifest, product: str, workflow: str = "", process: str = "", exits: str = ""
) -> tuple[WorkflowNames, str, list[str]]:
    """Return the workflow's names, who sends, and the exits that may answer; BadRequestError where that is unclear."""
    from fieldstation.pipeline.names import WorkflowNames

    flows = {spec.name: spec for spec in manifest.workflows}
    chosen = _one("workflow", workflow, list(flows), list(flows))
    kinds = {spec.name: spec.type for spec in flows[chosen].processes}
    sender = _one("process", process, [n for n, kind in kinds.items() if kind == "trigger"], list(kinds))
    ends = [n for n, kind in kinds.items() if kind == "exit"]
    if exits or not ends:
        ends = [_one("exits", exits, ends, list(kinds))]
    return WorkflowNames(product, manifest.version, chosen), sender, ends


def _one(field: str, told: str, usual: list[str], known: list[str]) -> str:
    if told in known:
        return told
    if told:
        raise BadRequestError(field=field, problem=f"there is no {told}; there are {', '.join(known)}")
    if len(usual) != 1:
        raise BadRequestError(field=field, problem=f"say which one: {', '.join(usual or known)}")
    return usual[0]


async def _ask(url: str, found: WorkflowNames, sender: str, ends: list[str], payload: Any, channel: str) -> Any:
    from fieldstation.pipeline.config import Nats, nats_secrets
    from fieldstation.pipeline.wire.asking import ask
    from fieldstation.pipeline.wire.connection import connect

    settings = Nats.model_validate({"url": url, **nats_secrets()})
    client = await connect(settings, name="fieldstation flow")
    try:
        return await ask(client, found, sender, ends, payload, channel=channel)
    finally:
        await client.close()


@asynccontextmanager
async def _address(manifest: Path, product: str, folder: Path, nats: str, run: Mapping[str, str]) -> AsyncIterator[str]:
    """Where the pipeline's NATS is; while the block runs there is one."""
    if nats or (nats := running(folder, product)):
        yield nats
        return

    words = ["--product", product, "--state", str(folder), *(f"--run={key}={value}" for key, value in run.items())]
    with TemporaryFile() as errors:
        # A process of its own: others can see it with `pipeline status`, and it ends with this one, however that ends.
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fieldstation", "pipeline", "up", str(manifest), *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            preexec_fn=die_with_parent,
        )
        try:
            url = await _ready(child, errors, manifest, folder, product)
            yield url
        finally:
            await asyncio.shield(end(child, STOP_S))


async def _ready(child: asyncio.subprocess.Process, errors: IO[bytes], manifest: Path, folder: Path, name: str) -> str:
    assert child.stdout is not None
    async for line in child.stdout:
        if line.startswith(b"ready "):
            return line.decode().split()[1]
    await child.wait()
    if url := running(folder, name):  # somebody else was quicker
        return url
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    problem = next((line for line in reversed(lines) if line.strip()), f"exit code {child.returncode}")
    raise PipelineStartError(manifest=manifest, problem=problem.strip())


def running(folder: Path, product: str) -> str:
    """The NATS address of the pipeline that runs from `folder` on this machine; empty when none does."""
    from fieldstation.pipeline import state
    from fieldstation.pipeline.errors import PipelineNotRunningError

    try:
        found = state.read(folder, product)
    except PipelineNotRunningError:
        return ""
    return found.nats_url if state.is_alive(found.pid) else ""
