"""Several bridges in one process, where memory is short. Image `node:together`."""

from __future__ import annotations

import asyncio

from fieldstation.core import plugins
from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.node import trigger
from fieldstation.pipeline.requesting import TriggerRunner


@trigger
async def together(requests: TriggerRunner, sdk: ProcessContext) -> None:
    """Run the triggers named in `bridges` (config, comma-separated, default `stations,fleet`) as one process.

    Each takes its own settings from the same config. They speak with one name, that of this process.
    """
    names = (await sdk.centralized_config.get("bridges", str, "stations,fleet")).split(",")
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(plugins.load("nodes", name.strip())(requests, sdk), name=name)
