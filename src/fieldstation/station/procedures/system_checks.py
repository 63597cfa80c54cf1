"""Checks of the computer itself: load, memory, disk, temperature, boot time."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from pathlib import Path

from fieldstation.station.agent import MessagingAgent
from fieldstation.station.config import Config
from fieldstation.station.grid import get_time_to_next_datapoint
from fieldstation.station.logger import Logger
from fieldstation.station.messages import DataMessageBody
from fieldstation.station.place import current_place
from fieldstation.station.state import StateInterface

WARN_PERCENT = 75
WARN_DISK_PERCENT = 90
WARN_CELSIUS = 80


def run(config: Config, logger: Logger) -> None:
    """Look, keep load and boot time in the state, send what was found, warn of what is too much."""
    if config.system_checks is None:
        return
    agent = MessagingAgent()
    while True:
        found = look(current_place().data_dir)
        with StateInterface.update() as state:
            boot = found["last_boot_time"]
            state.system.last_boot_time = datetime.datetime.fromtimestamp(boot, datetime.UTC).replace(tzinfo=None)
            state.system.last_5_min_load = found["last_5_min_load"]
        agent.add_message(DataMessageBody(data=dict(found)))
        for line in complaints(found):
            logger.warning(line)
        logger.debug("looked at the system", details="\n".join(f"{key}: {value}" for key, value in found.items()))
        time.sleep(get_time_to_next_datapoint(config.system_checks.seconds_between_checks))


def look(folder: Path) -> dict[str, float]:
    """Return what there is to see; what this computer does not tell is left out."""
    cores = os.cpu_count() or 1
    disk = shutil.disk_usage(folder)
    found = {
        # In percent of all cores: the bare load average says nothing without their number.
        f"last_{minutes}_min_load": round(load / cores * 100, 2)
        for minutes, load in zip((1, 5, 15), os.getloadavg(), strict=True)
    }
    found["last_boot_time"] = round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME), 1)
    found["disk_usage_percent"] = round(disk.used / disk.total * 100, 2)
    found["disk_free_mb"] = round(disk.free / 1e6, 1)
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (float(memory[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    found["memory_usage_percent"] = round((1 - available / total) * 100, 2)
    temperatures = []
    for sensor in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            temperatures.append(int(sensor.read_text()) / 1000)
        except (OSError, ValueError):
            continue
    if temperatures:
        found["temperature_celsius"] = round(max(temperatures), 1)
    return found


def complaints(found: dict[str, float]) -> list[str]:
    """Return a sentence for each value that is too high."""
    limits = [
        ("last_5_min_load", WARN_PERCENT, "the system load is {:.0f} %"),
        ("memory_usage_percent", WARN_PERCENT, "{:.0f} % of the memory are in use"),
        ("disk_usage_percent", WARN_DISK_PERCENT, "{:.0f} % of the disk are in use"),
        ("temperature_celsius", WARN_CELSIUS, "the computer has {:.0f} degrees Celsius"),
    ]
    return [text.format(found[key]) for key, limit, text in limits if found.get(key, 0) > limit]
