"""How everything is, in a few tiles. Knows nothing of pages."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fieldstation.fleet.control import Control
from fieldstation.fleet.model import WorkerState
from fieldstation.flow.desk import Desk
from fieldstation.flow.model import State
from fieldstation.web.sources import Sources


@dataclass(frozen=True, slots=True)
class Tile:
    """One number, a line below, and the page behind it. `bad` marks what somebody should look at."""

    title: str
    figure: str
    text: str
    link: str
    bad: bool = False


async def summary(sources: Sources) -> list[Tile]:
    """Return the tiles of all that is configured."""
    found = fleet_tiles(sources.control)
    if sources.desk is not None:
        found.append(await approvals_tile(sources.desk))
    return found


def fleet_tiles(control: Control) -> list[Tile]:
    """Devices and workers."""
    states = Counter(device.state.value for device in control.index.devices.values())
    total = sum(states.values())
    parts = [f"{count} {state.replace('_', ' ')}" for state, count in sorted(states.items())]
    workers = list(control.index.workers.values())
    away = [worker.name for worker in workers if worker.state is not WorkerState.ONLINE]
    lines = f"away: {', '.join(away)}" if away else "All lines are open."
    return [
        Tile(
            "Devices",
            f"{control.amount} of {total} free",
            ", ".join(parts) or "No worker has reported a device yet.",
            "devices",
            bad=bool(states["broken"]),
        ),
        Tile(
            "Workers",
            f"{len(workers) - len(away)} of {len(workers)} online",
            lines if workers else "Start one with: fieldstation fleet worker",
            "devices",
            bad=bool(away),
        ),
    ]


async def approvals_tile(desk: Desk) -> Tile:
    """What waits for a person."""
    waiting = await desk.listing(State.PENDING)
    text = f"newest: {waiting[0].title}" if waiting else "Nobody waits for an answer."
    return Tile("Approvals", f"{len(waiting)} waiting", text, "approvals", bad=bool(waiting))
