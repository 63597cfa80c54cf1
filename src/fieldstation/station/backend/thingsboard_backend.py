"""The documented entry point of the Thingsboard backend."""

from __future__ import annotations

import threading

from fieldstation.station.config import Config
from fieldstation.station.logger import Logger
from fieldstation.station.sending import send_until_torn_down


def run(config: Config, logger: Logger, teardown_indicator: threading.Event) -> None:
    """Send over the uplink `thingsboard`; `config.backend` says where to."""
    send_until_torn_down(config, logger, teardown_indicator, uplink="backend", provider="thingsboard")
