"""A role of a site: a program that runs on one machine, and what must be ready before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Role:
    """One program to keep running. `files` are written before it starts, for their owner's eyes only.

    It is ready when it prints `ready ...` (`says_ready`), when its `port` accepts connections, or else at once.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    after: tuple[str, ...] = ()
    says_ready: bool = True
    port: int = 0
    host: str = "127.0.0.1"  # where that port is tried
    url: str = ""
    stop_s: float = 8.0
    drains_s: float = 0.0  # a station sends what is queued before it ends; this long at most
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)


def levels(roles: Sequence[Role]) -> list[list[Role]]:
    """Sort into groups that start one after the other; a role whose `after` is not among them waits for nobody."""
    left = {role.name: role for role in roles}
    found: list[list[Role]] = []
    while left:
        free = [role for role in left.values() if not any(name in left for name in role.after)]
        if not free:
            free = list(left.values())  # a circle: nobody may wait for ever
        found.append(free)
        for role in free:
            del left[role.name]
    return found
