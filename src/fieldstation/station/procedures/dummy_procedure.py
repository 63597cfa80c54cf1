"""The documented example: a random walk. Copy it to begin a procedure of your own."""

from __future__ import annotations

import random
import time

from fieldstation.station.agent import MessagingAgent
from fieldstation.station.config import Config
from fieldstation.station.grid import get_time_to_next_datapoint
from fieldstation.station.logger import Logger
from fieldstation.station.messages import DataMessageBody
from fieldstation.station.state import StateInterface

TOO_BUSY_PERCENT = 75


def run(config: Config, logger: Logger) -> None:
    """Walk, and send the position on the time grid; points are skipped while the computer is too busy."""
    if config.dummy_procedure is None:
        return
    agent = MessagingAgent()
    a, b = 0.0, 0.0
    while True:
        load = StateInterface.load().system.last_5_min_load
        if load is not None and load >= TOO_BUSY_PERCENT:
            logger.debug("skipping a datapoint, the system is too busy")
        else:
            a += random.uniform(-1, 1)
            b += random.uniform(-1, 1)
            agent.add_message(DataMessageBody(data={"random_walk_a_position": a, "random_walk_b_position": b}))
            logger.debug("stored a datapoint")
        time.sleep(get_time_to_next_datapoint(config.dummy_procedure.seconds_between_datapoints))
