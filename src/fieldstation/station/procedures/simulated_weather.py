"""A simulated weather station: a slow day in a few minutes, with noise. For demonstrations and tests."""

from __future__ import annotations

import math
import random
import time

from fieldstation.station.agent import MessagingAgent
from fieldstation.station.config import Config
from fieldstation.station.grid import get_time_to_next_datapoint
from fieldstation.station.logger import Logger
from fieldstation.station.messages import DataMessageBody

DAY_S = 240.0
EVERY_S = 1


def weather(now: float, rng: random.Random) -> dict[str, float]:
    """Return temperature (degrees Celsius), humidity (%), pressure (hPa) and wind (m/s) at a Unix time."""
    phase = 2 * math.pi * (now % DAY_S) / DAY_S
    temperature = 12 + 6 * math.sin(phase) + rng.gauss(0, 0.15)
    return {
        "temperature": round(temperature, 2),
        "humidity": round(min(100.0, max(0.0, 65 - 3 * (temperature - 12) + rng.gauss(0, 1))), 1),
        "pressure": round(1013 + 2 * math.cos(phase / 2) + rng.gauss(0, 0.05), 2),
        "wind": round(abs(rng.gauss(4, 1.5)), 1),
    }


def run(config: Config, logger: Logger) -> None:
    """Report once a second."""
    agent, rng = MessagingAgent(), random.Random()
    logger.info("the simulated weather begins")
    while True:
        agent.add_message(DataMessageBody(data=dict(weather(time.time(), rng))))
        time.sleep(get_time_to_next_datapoint(EVERY_S))
