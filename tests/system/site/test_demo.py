"""`fieldstation demo`: one command, everything simulated, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fieldstation.testing import ServerProcess, wait_for

pytestmark = pytest.mark.timeout(120)
DEMO = (sys.executable, "-m", "fieldstation", "--log-level", "warning", "demo")


def test_once_reserves_two_evaluates_prints_a_table_and_exits_0(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # the wanted port is in use: another one is taken
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*DEMO, "--once", "--port", port, "--dir", tmp_path / "demo"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    heading, *rows = done.stdout.splitlines()
    assert heading.split()[:3] == ["serial", "file", "pulses"]
    assert len(rows) == 12
    assert all(re.match(r"\d{16} +circuit-\d\.bin +\d+ +[\d.]+ s +[\d.]+ s", row) for row in rows)
    assert "Reserved 1111111111111111, 2222222222222222" in done.stderr
    assert (tmp_path / "demo" / "fleet.db").exists()


def test_files_of_the_wrong_size_are_a_failed_demo(tmp_path: Path) -> None:
    (tmp_path / "short.bin").write_bytes(b"x")
    done = subprocess.run(
        [*DEMO, "--once", "--port", "0", tmp_path / "short.bin"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "it has 1 bytes" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_keeps_running_until_it_is_stopped_and_leaves_no_process(number: int, tmp_path: Path) -> None:
    demo = ServerProcess([*DEMO, "--port", "0", "--dir", tmp_path / "demo"])
    demo.wait_ready(60)
    children = psutil.Process(demo.pid).children(recursive=True)
    assert len(children) >= 3  # control, worker, boards
    os.kill(demo.pid, number)
    demo.wait(30)
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 30)
