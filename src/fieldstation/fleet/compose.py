"""From configuration to running servers of the fleet."""

from __future__ import annotations

import os
from typing import Any

from fieldstation.core.config import load
from fieldstation.core.log import setup
from fieldstation.fleet.config import CONTROL_VARIABLES, ControlConfig
from fieldstation.fleet.wire.control_server import ControlService


def control_config(**options: Any) -> ControlConfig:
    """Return control's settings from a file (`file=`), the environment (documented names too) and `overrides`."""
    return load(ControlConfig, table="fleet.control", aliases=CONTROL_VARIABLES, **options)


def control(config: ControlConfig) -> ControlService:
    """Return the control server, ready to be started."""
    return ControlService(config)


def control_asgi() -> Any:
    """Return control as an ASGI app whose life is its server's lifespan: `uvicorn --factory
    fieldstation.fleet.compose:control_asgi`. Settings come from the environment; `host` must be what uvicorn
    listens on, since it decides whether tokens are needed."""
    setup(os.environ.get("FIELDSTATION_LOG_LEVEL", "INFO"))
    return ControlService(control_config()).as_asgi()
