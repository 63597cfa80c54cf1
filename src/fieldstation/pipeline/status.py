"""How a pipeline does: rates, lag, redeliveries and dead letters per process, and the graph drawn in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldstation.pipeline.plan import Plan
from fieldstation.pipeline.state import ReplicaState


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a process' consumers, summed over its inputs."""

    handled: int  # messages acknowledged since the consumers exist
    lag: int  # messages that were not handed out yet
    in_work: int  # handed out and not acknowledged
    redelivered: int
    dead: int


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One row of `pipeline status`. `rate` is messages a second between two looks."""

    workflow: str
    process: str
    type: str
    replicas: str
    rate: float
    lag: int
    in_work: int
    redelivered: int
    dead_letters: int
    restarts: int
    hears: Sequence[str]


def rows_of(
    plan: Plan,
    before: Mapping[tuple[str, str], Reading],
    after: Mapping[tuple[str, str], Reading],
    seconds: float,
    replicas: Sequence[ReplicaState] | None,
) -> list[ProcessStatus]:
    """Return a row for each process from two looks `seconds` apart, each (workflow, process) -> Reading.

    `replicas` None: they run elsewhere, and only their planned number is known.
    """
    rows = []
    for process in plan.processes:
        key = process.workflow, process.name
        now = after[key]
        mine = [replica for replica in replicas or () if (replica.workflow, replica.process) == key]
        running = f"{sum(replica.state == 'running' for replica in mine)}/" if replicas is not None else ""
        rows.append(
            ProcessStatus(
                workflow=process.workflow,
                process=process.name,
                type=process.kind,
                replicas=f"{running}{process.replicas}",
                rate=rate(before.get(key, now), now, seconds),
                lag=now.lag,
                in_work=now.in_work,
                redelivered=now.redelivered,
                dead_letters=now.dead,
                restarts=sum(replica.restarts for replica in mine),
                hears=process.subscriptions,
            )
        )
    return rows


def rate(before: Reading, after: Reading, seconds: float) -> float:
    """Messages a second between two readings; 0 when the consumers were made anew in between."""
    return round(max(0, after.handled - before.handled) / seconds, 1) if seconds > 0 else 0.0


def draw(rows: Sequence[ProcessStatus]) -> list[str]:
    """Draw the graph: processes in columns from triggers to exits, what each hears, and how it does.

    Backward edges (exit to trigger) are told in words, since a terminal has no room for the arrow.
    """
    depth = levels({row.process: [s.partition(".")[0] for s in row.hears] for row in rows if row.type != "trigger"})
    for row in rows:
        if row.type == "trigger":
            depth[row.process] = 0
    lines: list[str] = []
    for level in sorted({depth[row.process] for row in rows}):
        for row in [row for row in rows if depth[row.process] == level]:
            arrow = "    " * level + ("└─▶ " if level else "")
            mark = " !" if row.dead_letters or row.redelivered else ""
            hears = f"  ◀ {', '.join(row.hears)}" if row.hears else ""
            lines.append(
                f"{arrow}{row.process} ({row.type} {row.replicas})  {row.rate:g}/s  lag {row.lag}{mark}{hears}"
            )
    return lines


def levels(hears: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Distance of each process from the triggers, by the longest way; names that hear nobody are at 0."""
    found: dict[str, int] = {}

    def level(name: str, path: frozenset[str]) -> int:
        if name in path:
            return 0
        if name not in found:
            senders = hears.get(name, [])
            found[name] = 1 + max((level(s, path | {name}) for s in senders), default=-1)
        return found[name]

    for name in hears:
        level(name, frozenset())
    return found
