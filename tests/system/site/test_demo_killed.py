"""The demonstration while its roles are killed (kill -9), one after the other: every count still holds."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import pytest

from fieldstation.core.errors import FieldstationError
from fieldstation.site.supervise import read_status
from fieldstation.testing import ServerProcess, wait_for

EVERY_S = 5.0


def _demo_while_roles_die(folder: Path, seconds: float, seed: int) -> None:
    command = [sys.executable, "-m", "fieldstation", "--log-level", "error", "demo", "--once", "--port", "0"]
    demo = ServerProcess([*command, "--dir", folder, "--seconds", f"{seconds:g}"])
    rng, order, killed = random.Random(seed), [], []
    try:
        wait_for(lambda: "Reserved " in demo.output or demo.process.poll() is not None, 150)
        while not _evaluated(demo, EVERY_S):
            running = {n: s for n, s in read_status(folder / "state").items() if s["state"] == "running"}
            order = order or rng.sample(sorted(running), len(running))
            role = order.pop()
            if role in running:
                os.kill(int(str(running[role]["pid"])), signal.SIGKILL)
                killed.append(role)
        code = demo.wait(240)
    finally:
        demo.kill()
    assert len(set(killed)) >= 3, demo.output
    assert code == 0, f"killed {killed}\n{demo.output}"
    assert demo.output.count("\nok  ") == 4


def _evaluated(demo: ServerProcess, patience_s: float) -> bool:
    def over() -> bool:
        return " are done; " in demo.output or demo.process.poll() is not None

    try:
        return wait_for(over, patience_s)
    except FieldstationError:
        return False


@pytest.mark.timeout(420)
def test_counts_hold_while_roles_are_killed(tmp_path: Path) -> None:
    _demo_while_roles_die(tmp_path / "demo", 20.0, seed=4)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_counts_hold_while_a_role_is_killed_every_five_seconds_for_three_minutes(tmp_path: Path) -> None:
    _demo_while_roles_die(tmp_path / "demo", 180.0, seed=random.randrange(1000))
