"""How a station is: one dictionary for the command line, /health and /metrics."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

from fieldstation.core.errors import StoreError
from fieldstation.station.config import Config
from fieldstation.station.place import Place
from fieldstation.station.store import Reader
from fieldstation.station.updates.answers import Answers
from fieldstation.station.updates.trial import TrialFile


def snapshot(place: Place, config: Config, processes: list[dict[str, Any]], writer_pid: int | None) -> dict[str, Any]:
    """Return the state of everything; `ok` is false when a process is down, a server unreached or the store broken."""
    backends = {p["name"]: p for p in processes if p["kind"] == "backend"}
    problems = [f"{p['name']} is not running" for p in processes if not p["running"]]
    queues: dict[str, Any] = {}
    for name in config.all_uplinks() or ["backend"]:
        details = backends.get(name, {}).get("details", {})
        try:
            queue = queue_status(place.queue_file, name)
        except (sqlite3.Error, StoreError) as error:
            problems.append(f"the store cannot be read: {error}")
            queue = {"depth": 0, "oldest_age_s": None, "parked": 0}
        queues[name] = {
            **queue,
            "configured": name in config.all_uplinks(),
            "connected": bool(details.get("connected")),
            "delivered": details.get("delivered", 0),
            "delivered_per_minute": details.get("delivered_per_minute", 0),
            "last_delivery": details.get("last_delivery"),
            "last_error": details.get("last_error"),
        }
        if name in backends and not queues[name]["connected"]:
            problems.append(f"{name} does not reach its server")
        if queues[name]["parked"]:
            problems.append(f"{name} set {queues[name]['parked']} messages aside")
    trial = TrialFile(place.data_dir).load()
    return {
        "ok": not problems,
        "problems": problems,
        "station": config.general.system_identifier,
        "version": place.version,
        "revision": config.general.config_revision,
        "on_trial": trial.revision if trial else None,
        "last_answer": Answers(place.data_dir).last(),
        "writer_pid": writer_pid,
        "processes": processes,
        "queues": queues,
        "time": time.time(),
    }


def queue_status(file: Path, uplink: str) -> dict[str, Any]:
    """Return depth, age of the oldest in seconds, how many are set aside, and how many came in the last minute."""
    if not file.exists():
        return {"depth": 0, "oldest_age_s": None, "parked": 0, "stored_per_minute": 0}
    reader = Reader(file, uplink)
    with contextlib.closing(reader):
        oldest = reader.oldest()
        return {
            "depth": reader.depth(),
            "oldest_age_s": None if oldest is None else round(max(0.0, time.time() - oldest), 1),
            "parked": len(reader.parked()),
            "stored_per_minute": reader.stored_since(time.time() - 60),
        }
