"""Start and stop the station in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from fieldstation.station.lock import holder
from fieldstation.station.place import STATION_DIR, current_place


class MainloopToggle:
    """The running instance is the one that holds `run.lock`: of whichever version, and never a mere child of it."""

    @staticmethod
    def get_mainloop_pids() -> list[int]:
        """Return the process id of the running main loop, in a list that is empty when none runs."""
        pid = holder()
        return [pid] if pid is not None else []

    @staticmethod
    def start_mainloop() -> None:
        """Start the main loop in the background and print its process id; say so when it runs already."""
        running = MainloopToggle.get_mainloop_pids()
        if running:
            print(f"the station is already running with the process id {running[0]}")  # noqa: T201 - documented
            return
        place = current_place()
        errors = place.data_dir / "run" / "stderr.log"
        errors.parent.mkdir(parents=True, exist_ok=True)
        with errors.open("wb") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "fieldstation", "station", "run"],
                cwd=place.project_dir,
                env={**os.environ, STATION_DIR: str(place.project_dir)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if (pids := MainloopToggle.get_mainloop_pids()) and (place.data_dir / "run" / "health.json").exists():
                child.returncode = 0  # left to run
                print(f"started the station with the process id {pids[0]}")  # noqa: T201 - documented
                return
            if child.poll() is not None:
                break
            time.sleep(0.02)
        said = errors.read_text(errors="replace").strip().splitlines()
        print(f"the station did not start: {said[-1] if said else 'it ended without a word'}")  # noqa: T201 - documented

    @staticmethod
    def stop_mainloop() -> None:
        """Ask the main loop to end, and print its process id. It tears down and drains; this does not wait."""
        pids = MainloopToggle.get_mainloop_pids()
        if not pids:
            print("the station is not running")  # noqa: T201 - documented
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            print(f"asked the station with the process id {pid} to stop")  # noqa: T201 - documented
