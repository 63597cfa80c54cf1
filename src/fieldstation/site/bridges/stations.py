"""Station messages to pipeline messages, from the stream of the uplink `nats`. Image `node:stations`."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import nats.errors
import nats.js.errors
from google.protobuf.struct_pb2 import Struct

from fieldstation.core.retry import Backoff
from fieldstation.pipeline.config import Nats, nats_secrets
from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.environment import read
from fieldstation.pipeline.node import trigger
from fieldstation.pipeline.requesting import TriggerRunner
from fieldstation.pipeline.wire.connection import connect
from fieldstation.site.bridges.passage import Passage, passage
from fieldstation.site.bridges.record import record

log = logging.getLogger(__name__)

BATCH = 100
FETCH_S = 5.0

_TROUBLE = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


@trigger
async def stations(requests: TriggerRunner, sdk: ProcessContext) -> None:
    """Forward what stations send, each message once stored here and then acknowledged there, until stopped.

    Config: `nats` (default: the pipeline's own server), `stream` (STATION), `prefix` (station), `kinds` (comma-
    separated of data, log, answer; default data). A stream that is not there yet is waited for.
    """
    get = sdk.centralized_config.get
    settings = {**read().nats.model_dump(), **nats_secrets()}
    if url := await get("nats", str, ""):
        settings["url"] = url
    stream, prefix = await get("stream", str, "STATION"), await get("prefix", str, "station")
    kinds = [kind.strip() for kind in (await get("kinds", str, "data")).split(",")]
    meta = sdk.metadata
    durable = f"{meta.get_product()}-{meta.get_workflow()}-{meta.get_process()}"
    client = await connect(Nats.model_validate(settings), name=durable)
    js = client.jetstream()
    try:
        async with passage(sdk) as out:
            backoff, failures = Backoff(0.5, 5.0), 0
            while True:
                try:
                    subscription = await js.pull_subscribe(
                        f"{prefix}.*.*" if len(kinds) > 1 else f"{prefix}.*.{kinds[0]}", durable=durable, stream=stream
                    )
                    while True:
                        await _fetch(subscription, kinds, out)
                        failures = 0
                except _TROUBLE as error:
                    level = logging.INFO if isinstance(error, nats.js.errors.NotFoundError) else logging.WARNING
                    log.log(level, "the stations' stream %s: %s", stream, str(error) or type(error).__name__)
                await asyncio.sleep(backoff.delay(failures))
                failures += 1
    finally:
        await client.close()


async def _fetch(subscription: Any, kinds: list[str], out: Passage) -> None:
    try:
        messages = await subscription.fetch(BATCH, timeout=FETCH_S)
    except TimeoutError:  # nats-py's own is one too: nothing came
        return
    for message in messages:
        _, station, kind = message.subject.rsplit(".", 2)
        found = parsed(station, kind, message.data) if kind in kinds else None
        if found is None:
            await message.ack()
            continue
        identity, payload = found

        async def done(stored: bool, message: Any = message) -> None:
            await (message.ack() if stored else message.term())

        await out.send(payload, identity, done)


def parsed(station: str, kind: str, data: bytes) -> tuple[str, Struct] | None:
    """Return id and record of a station's message; None for what no station of ours sent."""
    try:
        entry = json.loads(data)
        identity, time, body = str(entry["id"]), float(entry["timestamp"]), entry["body"]
        values = {"station": station, "kind": kind, **(body.get("data") if kind == "data" else {"body": body})}
        return identity, record("station", identity, time, values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("a message of %s is none that a station sends, and is left out: %s", station, error)
        return None
