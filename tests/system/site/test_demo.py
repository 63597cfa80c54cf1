"""`fieldstation demo`: one command, a whole simulated site, every count checked, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fieldstation.site.bridges.archive import rows
from fieldstation.site.demo.report import joined
from fieldstation.testing import ServerProcess, wait_for

pytestmark = pytest.mark.timeout(240)
DEMO = (sys.executable, "-m", "fieldstation", "--log-level", "warning", "demo")


def test_once_runs_the_experiment_checks_every_count_and_exits_0(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [*DEMO, "--once", "--port", "0", "--dir", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split()[:3] == ["serial", "file", "pulses"]
    table = [line for line in lines if re.match(r"\d{16} +circuit-\d\.bin +\d+ +[\d.]+ s +[\d.]+ s", line)]
    assert len(table) == 12
    checks = [line.split(maxsplit=2) for line in lines if line.startswith(("ok ", "NOT"))]
    assert [(word, name) for word, name, _ in checks] == [
        ("ok", name) for name in ("evaluations", "frames", "station", "pipeline")
    ]
    assert "sent 12 = results 12 = in the table 12" in checks[0][2]
    assert "The panel is at http://127.0.0.1:" in done.stderr

    archive = folder / "table" / "archive.sqlite3"
    one = joined(archive)[0]  # each pulse count has the weather and the frame of its moment beside it
    assert {"pulses", "serial", "file", "station_temperature", "frames_mean"} <= one.keys()
    assert {source for _, source, _, _ in rows(archive)} == {"pulses", "station", "frames", "fleet"}
    report = folder / "report"
    assert (report / "report.png").read_bytes().startswith(b"\x89PNG")
    assert (report / "joined.parquet").stat().st_size > 1000
    page = (report / "report.html").read_text()
    assert "circuit-6.bin" in page
    assert all(check["ok"] for check in json.loads((report / "checks.json").read_text()))
    days = list((folder / "table" / "messages").glob("*.csv"))
    assert days
    assert days[0].read_text().startswith("timestamp,message_body\n")


def test_it_waits_for_a_yes_until_it_is_stopped_and_leaves_no_process(tmp_path: Path) -> None:
    demo = ServerProcess([*DEMO, "--port", "0", "--dir", tmp_path / "demo"])
    try:
        demo.wait_ready(150)  # printed when the approval waits
        assert "The report waits for a yes" in demo.output
        assert not (tmp_path / "demo" / "report").exists()
        children = psutil.Process(demo.pid).children(recursive=True)
        assert len(children) >= 15  # eight roles, and what they start
        os.kill(demo.pid, signal.SIGTERM)
        assert demo.wait(60) in (0, 130)
        wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 60)
    finally:
        demo.kill()
