"""Is this a small device? A setting first, then the memory, then the name of the board."""

from __future__ import annotations

from pathlib import Path

from fieldstation.kit.environment import setting

_SMALL_BYTES = 600 << 20  # a Pi Zero 2 W has 512 MB, the smallest orchestrating machine 1 GB


def is_worker_node(*, model: Path = Path("/proc/device-tree/model"), memory: Path = Path("/proc/meminfo")) -> bool:
    """True on a machine that should run commands for others but not orchestrate; never raises.

    FIELDSTATION_WORKER_NODE (`1` or `0`) decides when it is set.
    """
    told = setting("FIELDSTATION_WORKER_NODE").lower()
    if told:
        return told in ("1", "true", "yes", "on")
    try:
        if b"Zero" in model.read_bytes():
            return True
    except OSError:
        pass
    try:
        total = next(line for line in memory.read_text().splitlines() if line.startswith("MemTotal:"))
        return int(total.split()[1]) * 1024 < _SMALL_BYTES
    except (OSError, StopIteration, ValueError, IndexError):
        return False
