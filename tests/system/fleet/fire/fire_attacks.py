"""What happens to a fleet under fire: a history of blows that follows from its seed alone."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PAUSE_S = (0.4, 2.2)  # between two blows
SHORT_S, LONG_S = (0.2, 2.0), (2.0, 14.0)  # long: also beyond the 10 s that a call on a line may take

AFTER_S = 3.0  # by then every blow is undone

# What can be done to what, how often relative to the others, and for how long it lasts.
BLOWS = {
    "kill worker": (4, (0.0, 4.0)),  # killed for so long, then started again
    "kill control": (3, (0.0, 3.0)),
    "kill client": (2, (0.0, 1.0)),
    "kill database": (2, (0.0, 3.0)),
    "stop worker": (3, LONG_S),  # SIGSTOP for so long
    "stop control": (3, SHORT_S),
    "stop client": (2, LONG_S),
    "cut line": (6, (0.0, 0.0)),
    "cut part of line": (6, (0.0, 0.0)),
    "refuse line": (4, LONG_S),
    "hold line": (4, LONG_S),
    "strand line": (3, (0.0, 0.0)),
    "slow line": (4, LONG_S),
    "spread line": (4, LONG_S),
}
WORKERS = ("a", "b")
PROGRAMS = ("0", "1", "2")


def controls(shared: bool) -> tuple[str, ...]:
    """A database on a server of its own is shared by two controls."""
    return ("first", "second") if shared else ("first",)


def lines(shared: bool) -> list[str]:
    """From each worker to each control, from programs to each control, from programs to each worker."""
    to_control = [f"{who}>{control}" for who in (*WORKERS, "clients") for control in controls(shared)]
    return [*to_control, *(f"clients>{worker}" for worker in WORKERS)]


@dataclass(frozen=True, slots=True)
class Blow:
    """At `at_s` do `what` to `target`, and undo it after `for_s`."""

    at_s: float
    what: str
    target: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} s  {self.what} {self.target}" + (f" for {self.for_s:.2f} s" if self.for_s else "")


def history(seed: int, duration_s: float, *, shared: bool = True) -> list[Blow]:
    """Return the blows of `duration_s`; the same for the same arguments, on every machine."""
    chance = random.Random(seed)
    names = [name for name in BLOWS if shared or not name.endswith("database")]
    targets = {
        "worker": WORKERS,
        "control": controls(shared),
        "client": PROGRAMS,
        "database": ("database",),
        "line": lines(shared),
    }
    weights = [BLOWS[name][0] for name in names]
    blows = []
    at_s = chance.uniform(*PAUSE_S)
    while at_s < duration_s:
        (what,) = chance.choices(names, weights)
        target = chance.choice(targets[what.rpartition(" ")[2]])
        for_s = round(min(chance.uniform(*BLOWS[what][1]), duration_s + AFTER_S - at_s), 2)
        blows.append(Blow(round(at_s, 2), what, target, for_s))
        at_s += chance.uniform(*PAUSE_S)
    return blows


def told(blows: Sequence[Blow]) -> str:
    """One line of JSON for each blow, to be kept as a regression."""
    return "\n".join(json.dumps(asdict(blow)) for blow in blows)
