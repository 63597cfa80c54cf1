"""The one shape in which bridges send: a google.protobuf.Struct `{source, id, time, values}`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from fieldstation.core.errors import FieldstationError
from fieldstation.pipeline.context import ProcessContext


class BridgeSettingError(FieldstationError):
    """The node {process} does not know {what}: set `{key}` in its config, or start it in a site that has one."""


def record(source: str, identity: str, time: float, values: Mapping[str, Any]) -> Struct:
    """Return a record. `identity` is unique for ever, `time` is Unix seconds; numbers travel as doubles."""
    found = Struct()
    found.update({"source": source, "id": identity, "time": time, "values": dict(values)})
    return found


def fields(message: Struct) -> dict[str, Any]:
    """Return the members of a record, or of any Struct; a record's `time` is a float."""
    found: dict[str, Any] = MessageToDict(message)
    return found


async def setting(sdk: ProcessContext, key: str, variable: str, what: str) -> str:
    """Return a setting of a bridge: `key` of the process' config, else what the site says in the environment."""
    text: str = await sdk.centralized_config.get(key, str, os.environ.get(variable, ""))
    if not text:
        raise BridgeSettingError(process=sdk.metadata.get_process(), what=what, key=key)
    return text
