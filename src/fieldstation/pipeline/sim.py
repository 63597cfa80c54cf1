"""Nodes to try a pipeline with, chosen by name as `image: node:echo` or `image: node:pulses`."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from google.protobuf.struct_pb2 import Struct

from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.errors import RequestTimeoutError
from fieldstation.pipeline.node import task, trigger
from fieldstation.pipeline.requesting import TriggerRunner


@task
async def echo(sdk: ProcessContext, payload: Any) -> Any:
    """Send on what came in."""
    return payload


@trigger
async def pulses(requests: TriggerRunner, sdk: ProcessContext) -> None:
    """Begin a request every `period_s` (centralized configuration, default 1) with a reading, and log the answer."""
    number = 0
    while True:
        reading = Struct()
        reading.update({"number": number, "value": round(math.sin(number / 10), 4)})
        try:
            await requests.request(reading, timeout_s=5)
        except RequestTimeoutError:
            sdk.logger.warning("no answer to reading {}", number)
        number += 1
        await asyncio.sleep(await sdk.centralized_config.get("period_s", float, 1.0))
