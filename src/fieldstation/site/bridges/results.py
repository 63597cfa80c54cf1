"""Results of a script into a pipeline: what `fleet evaluate` or a client measured, as records on a channel.

A script has no process in the pipeline. It speaks through the channel of one that has: the bridge `fleet` with the
channel `pulses` is subscribed to as `fleet.pulses`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.struct_pb2 import Struct
from nats.js import JetStreamContext

from fieldstation.core.retry import Backoff, retry
from fieldstation.pipeline.config import Nats, nats_secrets
from fieldstation.pipeline.manifest import load
from fieldstation.pipeline.model import Message
from fieldstation.pipeline.names import WorkflowNames
from fieldstation.pipeline.wire import codec
from fieldstation.pipeline.wire.connection import connect

SEND_S = 120.0  # an outage of the message server that is longer is told to the script


class Channel:
    """`send(id, record)` returns when the message is stored; sent again under the same id it is stored once."""

    def __init__(self, js: JetStreamContext, subject: str, process: str) -> None:
        self._js = js
        self._subject = subject
        self._process = process

    async def send(self, identity: str, message: Struct) -> None:
        """Publish a record, over outages of the message server of up to two minutes."""
        body = codec.encode(Message(identity, codec.pack(message), "", self._process))

        async def publish() -> Any:
            return await self._js.publish(self._subject, body, timeout=5, headers={"Nats-Msg-Id": identity})

        await retry(publish, on=Exception, backoff=Backoff(0.1, 2.0), deadline_s=SEND_S)


@asynccontextmanager
async def channel(
    manifest: Path, product: str, nats: str, *, process: str = "fleet", name: str = "pulses", workflow: str = ""
) -> AsyncIterator[Channel]:
    """Open the channel `name` of `process` in the pipeline of `manifest`, which runs as `product` on `nats`."""
    found = load(manifest)
    flow = workflow or next(w.name for w in found.workflows if any(p.name == process for p in w.processes))
    subject = WorkflowNames(product, found.version, flow).output(process, name)
    settings = Nats.model_validate({"url": nats, **nats_secrets()})
    client = await connect(settings, name=f"{process}.{name}")
    try:
        yield Channel(client.jetstream(), subject, process)
    finally:
        with contextlib.suppress(Exception):
            await client.close()
