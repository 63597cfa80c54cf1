"""How everything is, in a few tiles. Knows nothing of pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fieldstation.fleet.control import Control
from fieldstation.fleet.model import WorkerState
from fieldstation.flow.desk import Desk
from fieldstation.flow.model import State
from fieldstation.web.sources import Sources
from fieldstation.web.station_view import StationView

if TYPE_CHECKING:  # each needs an extra of its own, which a control may lack
    from fieldstation.web.frames import FrameSource
    from fieldstation.web.pipelines import PipelineWatch


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
    if sources.stations is not None:
        found.append(stations_tile(sources.stations.look(), sources.stations.problem))
    found += [stream_tile(source) for source in sources.streams.values()]
    found += [pipeline_tile(watch) for watch in sources.pipelines.values()]
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


def stations_tile(views: Sequence[StationView], problem: str) -> Tile:
    """Stations that report."""
    well = sum(view.state == "ok" for view in views)
    text = problem or ", ".join(f"{view.identity} {view.state}" for view in views if view.state != "ok")
    return Tile(
        "Stations",
        f"{well} of {len(views)} well",
        text or "All answer.",
        "stations",
        bad=bool(problem) or well < len(views),
    )


def stream_tile(source: FrameSource) -> Tile:
    """One frame server. Nobody asks it while nobody looks, so there may be nothing to tell."""
    if source.problem:
        return Tile(f"Stream {source.name}", "in trouble", source.problem, "streams", bad=True)
    figure = f"{source.rate:g} frames/s" if source.is_watched else "not watched"
    text = f"at {source.target}" + (f", {source.produced} frames shown so far" if source.produced else "")
    return Tile(f"Stream {source.name}", figure, text, "streams")


def pipeline_tile(watch: PipelineWatch) -> Tile:
    """One pipeline: how much is handled, what was given up."""
    rows = watch.look()
    dead, lag = sum(row.dead_letters for row in rows), sum(row.lag for row in rows)
    pace = max((row.rate for row in rows), default=0.0)
    text = watch.problem or f"{len(rows)} processes, lag {lag}, {dead} dead letters"
    return Tile(f"Pipeline {watch.name}", f"{pace:g}/s", text, "pipelines", bad=bool(watch.problem or dead))
