"""Configs that arrive: parsed as far as any version can, and put where the main loop finds them."""

from __future__ import annotations

import json
from typing import Any

from fieldstation.station.config import MAX_CONFIG_BYTES, ForeignConfig
from fieldstation.station.errors import StationConfigError
from fieldstation.station.state import StateInterface


def parse_json(payload: bytes) -> Any:
    """Return the JSON value of a payload; StationConfigError when it is too large, no UTF-8 or no JSON."""
    if len(payload) > MAX_CONFIG_BYTES:
        raise StationConfigError(f"The config has {len(payload)} bytes; more than {MAX_CONFIG_BYTES} are not taken.")
    try:
        return json.loads(payload.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise StationConfigError(f"The config is no JSON: {error}.") from error


def hand_over(config: Any, revision: int | None = None) -> None:
    """Append a config to `pending_configs`; it is on the disk when this returns.

    What no version could read goes there as well, so that it is answered in the same place.
    """
    try:
        if isinstance(config, str):
            config = parse_json(config.encode())
        if not isinstance(config, dict) or not isinstance(config.get("general"), dict):
            raise StationConfigError("The config has no section `general`.")
        if revision is not None:
            config = {**config, "general": {**config["general"], "config_revision": revision}}
        _append(ForeignConfig.load_from_string(json.dumps(config)))
    except StationConfigError as error:
        hand_over_unreadable(str(error), revision)


def hand_over_unreadable(reason: str, revision: int | None = None) -> None:
    """Have the main loop refuse something that is no config: as version 0.0.0, with the reason in `unreadable`."""
    known = revision is not None and -1 <= revision < 2**31
    general = {"config_revision": revision if known else -1, "software_version": "0.0.0"}
    _append(ForeignConfig.model_validate({"general": general, "unreadable": reason}))


def _append(config: ForeignConfig) -> None:
    with StateInterface.update() as state:
        if config not in state.pending_configs:
            state.pending_configs.append(config)
