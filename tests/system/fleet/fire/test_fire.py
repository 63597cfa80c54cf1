"""The fleet under fire: processes killed and stopped, lines cut, held, stranded and slowed, the database restarted.

The seed is printed and `--seed N` repeats its history; `--fire-s S` (or FIELDSTATION_FIRE_S) sets how long it burns.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from fire_attacks import WORKERS, Blow, history, told
from fire_ground import BOARDS, Ground
from fire_reckoning import Reckoning, lines

from fieldstation.fleet.blocking.drivers import PulseCountClient

SHORT_S = 30.0  # a minute in all: once on each database
SOAK_S = 1800.0


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("--seed")
    if given is None:  # by chance in `make soak` only: `make test` is there to find what a change has broken
        return random.SystemRandom().randrange(10**6) if request.node.get_closest_marker("soak") else 1
    return int(given)


def burn(folder: Path, database: object, seed: int, blows: list[Blow]) -> Reckoning:
    with Ground(folder, database, seed) as ground:
        ground.strike(blows)
        ground.cease()
        everything_can_be_reserved_at_once(ground.way("clients"))
        return reckon(ground)


def everything_can_be_reserved_at_once(url: str) -> None:
    """Nobody stands in the queue any more, and all devices are free and work."""
    import logging

    with PulseCountClient(url, "last", logging.getLogger("last")) as client:
        assert len(client.reserve(BOARDS * len(WORKERS))) == BOARDS * len(WORKERS)


def reckon(ground: Ground) -> Reckoning:
    found = Reckoning()
    journals = {program.name: lines(program.journal) for program in ground.former}
    holders = found.programs(journals, {program.name for program in ground.former if program.killed})
    granted = found.audit(ground.audit(), holders)
    found.fences(ground.ask("/api/fleet/devices"), granted)
    seen = found.boards([lines(ground.board_journal(name)) for name in WORKERS], granted)
    found.measured(journals, seen)
    found.expect(ground.ask("/api/fleet/reservations") == [], "reservations are left over")
    found.wrong += ground.mishaps
    for name, server in [*ground.ended, *ground.servers.items()]:
        if "Traceback" in server.output:
            at = server.output.index("Traceback")
            found.wrong.append(
                f"{name} logged an error that nobody expected:\n{server.output[max(0, at - 500) :][:3000]}"
            )
    return found


@pytest.fixture
def fire(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> Callable[[str, float], Reckoning]:
    def burn_for(database: str, seconds: float) -> Reckoning:
        print(f"seed {seed}: pytest {request.node.nodeid.partition('[')[0]} --seed {seed}")
        server = request.getfixturevalue("postgres") if database == "postgresql" else None
        blows = history(seed, seconds, shared=server is not None)
        found = burn(tmp_path, server, seed, blows)
        print(found.table())
        if found.wrong:
            pytest.fail(
                f"seed {seed}; {len(found.wrong)} contradictions:\n" + "\n".join(found.wrong[:20]) + "\n" + told(blows)
            )
        return found

    return burn_for


def duration(request: pytest.FixtureRequest, default_s: float) -> float:
    given = request.config.getoption("--fire-s")
    return default_s if given is None else float(given)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.timeout(400)
def test_nothing_is_lost_or_doubled_under_fire(
    fire: Callable[[str, float], Reckoning], database: str, request: pytest.FixtureRequest
) -> None:
    found = fire(database, duration(request, SHORT_S))
    assert found.counts["evaluations with a result"] > 0
    assert found.counts["reservations granted"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.timeout(0)
def test_nothing_is_lost_or_doubled_in_half_an_hour_of_fire(
    fire: Callable[[str, float], Reckoning], database: str, request: pytest.FixtureRequest
) -> None:
    fire(database, duration(request, SOAK_S / 2))
