"""The demonstration as somebody meets it: how soon the panel is there, how long all of it takes, how much memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from rows import Row, main

from fieldstation.site.supervise import read_status

FIELDSTATION = (sys.executable, "-m", "fieldstation", "--log-level", "error")


class Watch:
    """The greatest memory of a process and all below it, looked at five times a second: the sum of what each has
    resident, `peak`, and `proportional`, the same with what several share counted once."""

    def __init__(self, pid: int) -> None:
        self.peak = self.proportional = 0
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def now(self) -> tuple[int, int]:
        total = shared_once = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                total += process.memory_info().rss
                shared_once += proportional(process.pid)
            except (psutil.Error, OSError):
                continue
        return total, shared_once

    def _look(self) -> None:
        while not self._over.wait(0.2):
            try:
                total, shared_once = self.now()
            except psutil.Error:
                return
            self.peak = max(self.peak, total)
            self.proportional = max(self.proportional, shared_once)

    def __str__(self) -> str:
        return f"{self.peak / 1e6:.0f} MB; {self.proportional / 1e6:.0f} MB, what is shared counted once"

    def end(self) -> None:
        self._over.set()
        self._thread.join()


def proportional(pid: int) -> int:
    """Return a process' proportional set size in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """Run the demonstration; yields it and when it began."""
    began = time.monotonic()
    process = subprocess.Popen(
        [*FIELDSTATION, "demo", "--port", "0", "--dir", folder, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, began
    finally:
        process.terminate()
        process.wait(60)


def until(process: subprocess.Popen[str], text: str) -> str:
    """Return the line that has `text` in it, once it is said."""
    assert process.stderr is not None
    said = []
    while line := process.stderr.readline():
        said.append(line)
        if text in line:
            return line
    raise SystemExit(f"the demonstration ended before it said {text!r}; it said: {''.join(said)}")


def measure() -> list[Row]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        command = [*FIELDSTATION, "fleet", "control", "--port", "0", "--database", f"sqlite:///{folder}/bare.db"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bare:
            assert bare.stdout is not None
            bare.stdout.readline()
            alone_s = time.monotonic() - began
            bare.terminate()

        with demo(Path(folder) / "once", "--once") as (process, began):
            watch = Watch(process.pid)
            until(process, "The panel is at")
            panel_s = time.monotonic() - began
            process.communicate()
            once_s, code = time.monotonic() - began, process.returncode
            watch.end()

        with demo(Path(folder) / "stays") as (process, _):
            whole = Watch(process.pid)
            panel = until(process, "The panel is at").split()[-1]
            words = until(process, "approvals approve").split()
            standing = Watch(process.pid)
            time.sleep(3)
            standing.end()
            with urllib.request.urlopen(f"{panel}/", timeout=30) as page:  # somebody looks
                page.read()
            approve = [*FIELDSTATION, *words[words.index("approvals") :]]
            subprocess.run(approve, check=True, stdout=subprocess.DEVNULL)
            until(process, "Everything keeps running")
            whole.end()
            status = read_status(Path(folder) / "stays" / "state")
            os.kill(int(str(status["stream.camera"]["pid"])), signal.SIGKILL)
            killed = time.monotonic()
            while (now := read_status(Path(folder) / "stays" / "state")["stream.camera"])["restarts"] != 1 or now[
                "state"
            ] != "running":
                time.sleep(0.02)
            back_s = time.monotonic() - killed

    if code != 0:
        raise SystemExit(f"demo --once ended with {code}")
    found.append(
        Row(
            "demo: the panel's address",
            f"{panel_s:.1f} s",
            f"{alone_s:.1f} s, control alone",
            panel_s / alone_s,
            "< 6 s",
        )
    )
    found.append(Row("demo --once, every count checked", f"{once_s:.1f} s", "", None, "< 60 s"))
    found.append(Row("demo: all processes while it waits", str(standing), "", None, "< 900 MB"))
    found.append(Row("demo: all processes until the report is there, greatest", str(whole), "", None, "< 900 MB"))
    found.append(Row("demo --once: all processes, greatest", str(watch), "", None, "< 900 MB"))
    found.append(Row("a killed frame server serves again", f"{back_s:.1f} s", "", None, ""))
    return found


if __name__ == "__main__":
    main("site", measure)
