"""Put the newest record of each source beside a record that wants company. Image `node:join`."""

from __future__ import annotations

import json
import time
from typing import Any

from google.protobuf.struct_pb2 import Struct

from fieldstation.pipeline.context import ProcessContext
from fieldstation.pipeline.node import task
from fieldstation.site.bridges.record import fields, record

SAVE_EVERY_S = 1.0
KEY = "join/latest"
PROCESS = "process"


class Latest:
    """The newest values of each source; kept in the pipeline's key-value store, so that a restart remembers them."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        self._saved_at = 0.0
        self._loaded = False

    async def load(self, sdk: ProcessContext) -> None:
        """Read what the process before this one knew."""
        if not self._loaded:
            text, found = await sdk.centralized_config.get_config(KEY, PROCESS)
            self.values = json.loads(text) if found and text else {}
            self._loaded = True

    async def note(self, sdk: ProcessContext, found: dict[str, Any]) -> None:
        """Remember a record's values, unless a newer one of its source is known."""
        known = self.values.get(found["source"])
        if known is not None and known["time"] > found["time"]:
            return
        self.values[found["source"]] = {"time": found["time"], **found["values"]}
        if time.monotonic() - self._saved_at > SAVE_EVERY_S or known is None:
            self._saved_at = time.monotonic()
            await sdk.centralized_config.set_config(KEY, json.dumps(self.values), PROCESS)

    def beside(self, wanted: list[str]) -> dict[str, Any]:
        """Return the newest values of the sources, each named `<source>_<value>`."""
        return {f"{source}_{key}": value for source in wanted for key, value in self.values.get(source, {}).items()}


_latest = Latest()


@task
async def join(sdk: ProcessContext, payload: Struct) -> Struct:
    """Send every record on; one of the source `onto` (config, `pulses`) with the newest values of the sources `beside`
    (comma-separated, `station,frames`) in it."""
    found = fields(payload)
    if not {"source", "id", "time", "values"} <= found.keys():
        return payload
    await _latest.load(sdk)
    if found["source"] != await sdk.centralized_config.get("onto", str, "pulses"):
        await _latest.note(sdk, found)
        return payload
    beside = (await sdk.centralized_config.get("beside", str, "station,frames")).split(",")
    values = {**found["values"], **_latest.beside([source.strip() for source in beside])}
    return record(found["source"], found["id"], found["time"], values)
