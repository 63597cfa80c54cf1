"""Keeps the writer, the procedures and the backends running; ends them in order."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldstation.core.files import write_file
from fieldstation.station.config import Config, SupervisionConfig
from fieldstation.station.frames import connect
from fieldstation.station.lifecycle import LifecycleManager
from fieldstation.station.logger import Logger
from fieldstation.station.restarts import RestartPolicy

_LOOK_AT_MEMORY_EVERY_S = 5.0


class Charge:
    """One supervised process: its manager, when it may start next, and its limits."""

    def __init__(self, manager: LifecycleManager, limits: SupervisionConfig) -> None:
        self.manager = manager
        self.limits = limits
        self.policy = RestartPolicy(limits.restarts_per_hour)
        self.start_at = 0.0
        self.deaths = 0

    def report(self) -> dict[str, Any]:
        """Return what `status` shows of it."""
        manager = self.manager
        running = manager.procedure_is_running()
        return {
            "name": manager.name,
            "kind": manager.variant,
            "running": running,
            "pid": manager.pid,
            "uptime_s": round(time.monotonic() - manager.started, 1) if running else 0,
            "deaths": self.deaths,
            "last_exit_code": manager.exit_code,
            "starts_in_s": None if running else round(max(0.0, self.start_at - time.monotonic()), 1),
            **({"details": manager.status} if manager.status else {}),
        }


class WriterProcess:
    """The store's writer as our child; started again at once when it dies, since everybody waits for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._process.pid if self._process else None

    def keep(self) -> None:
        """Start it when it is not running; at most once in a fifth of a second."""
        if self._process is not None and self._process.poll() is None:
            return
        if time.monotonic() - self._started < 0.2:
            return
        self._started = time.monotonic()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        # The pipe tells it when we are gone, whatever we died of.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fieldstation.station.writer", str(self._folder), "--supervised"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    def wait_ready(self, timeout_s: float = 20.0) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                connect(self._folder, 1.0).close()
                return
            self.keep()
            time.sleep(0.005)

    def end(self) -> None:
        """Let it finish its commit and end."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()


class Supervisor:
    """The charges of one config. `tend` is called often and never waits."""

    def __init__(self, config: Config, managers: Sequence[LifecycleManager], run_dir: Path) -> None:
        default = config.supervision.get("*", SupervisionConfig())
        self.charges = [Charge(manager, config.supervision.get(manager.name, default)) for manager in managers]
        self._logger = Logger(config, "supervisor")
        self._children_file = run_dir / "children.json"
        self._next_look = 0.0

    def tend(self) -> None:
        """Start what is due, take in signs of life, restart what died, hangs or grew too big."""
        now = time.monotonic()
        changed = False
        for charge in self.charges:
            manager = charge.manager
            manager.pump()
            if not manager.procedure_is_running():
                if now >= charge.start_at:
                    manager.start_procedure()
                    changed = True
                continue
            if manager.has_ended():
                self._mourn(charge, now)
                changed = True
            elif charge.limits.watchdog_seconds and now - manager.last_beat > charge.limits.watchdog_seconds:
                self._logger.error(
                    f"{manager.name} gave no sign of life for {charge.limits.watchdog_seconds:g} s and is restarted"
                )
                manager.kill()
                self._mourn(charge, now)
                changed = True
        if now >= self._next_look:
            self._next_look = now + _LOOK_AT_MEMORY_EVERY_S
            self._look_at_memory()
        if changed:
            self._record()

    def next_start_in_s(self) -> float:
        """Return how long until a charge that does not run may start; infinite when all run."""
        waiting = [charge.start_at for charge in self.charges if not charge.manager.procedure_is_running()]
        return max(0.0, min(waiting, default=math.inf) - time.monotonic())

    def _mourn(self, charge: Charge, now: float) -> None:
        charge.deaths += 1
        charge.manager.check_procedure_status()
        delay = charge.policy.died(now, now - charge.manager.started)
        charge.start_at = now + delay
        if delay >= 60:
            self._logger.error(f"{charge.manager.name} dies too often; the next start is in {delay:.0f} s")

    def _look_at_memory(self) -> None:
        for charge in self.charges:
            limit, pid = charge.limits.memory_limit_mb, charge.manager.pid
            if limit is not None and pid is not None and (used := resident_mb(pid)) > limit:
                self._logger.error(
                    f"{charge.manager.name} uses {used:.0f} MB, more than {limit:g} MB, and is restarted"
                )
                charge.manager.kill()

    def end(self, *, drain: bool = True) -> None:
        """End the procedures together, then the backends, each within its documented time."""
        for variant in ("procedure", "backend"):
            managers = [c.manager for c in self.charges if c.manager.variant == variant]
            started = time.monotonic()
            for manager in managers:
                manager.ask_to_end(drain=drain)
            for manager in managers:
                left = manager.deadline_s(drain=drain) - (time.monotonic() - started)
                manager.wait_ended(max(0.0, left))
        self._record()
        self._logger.teardown()

    def _record(self) -> None:
        pids = [pid for charge in self.charges if (pid := charge.manager.pid) is not None]
        with contextlib.suppress(OSError):
            write_file(self._children_file, json.dumps([[pid, birth_of(pid)] for pid in pids]))


def reap_orphans(run_dir: Path) -> list[int]:
    """End children that a killed supervisor left behind; returns their process ids.

    Their birth time is compared, so a process that only got the same number is left alone.
    """
    try:
        known = json.loads((run_dir / "children.json").read_text())
    except (OSError, ValueError):
        return []
    orphans = [pid for pid, birth in known if birth is not None and birth_of(pid) == birth]
    for pid in orphans:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 5
    while any(birth_of(pid) is not None for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in orphans:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return orphans


def birth_of(pid: int) -> int | None:
    """Return when a process was started, in ticks since boot, or None when there is none (or only its corpse)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB; 0 when there is none."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        return 0.0
