"""`fieldstation up`: the roles of a site file under one supervisor, killed and restarted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fieldstation.site.supervise import read_status
from fieldstation.testing import ServerProcess, free_port, wait_for

pytestmark = pytest.mark.timeout(150)
PROGRAM = (
    "import sys, time; print('ready there', flush=True); print('a word', file=sys.stderr, flush=True); time.sleep(999)"
)


def _site(folder: Path, control: int, worker: int) -> Path:
    path = folder / "site.toml"
    command = json.dumps([sys.executable, "-c", PROGRAM])
    path.write_text(
        f'[site]\nname = "hill"\n[fleet.control]\nport = {control}\n[fleet.worker.a]\nport = {worker}\nsimulate = 1\n'
        f'[program.clock]\ncommand = {command}\nsays_ready = true\nafter = ["fleet.worker.a"]\n'
    )
    return path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[ServerProcess, Path]]:
    path = _site(tmp_path, free_port(), free_port())
    server = ServerProcess(["fieldstation", "up", path])
    try:
        server.wait_ready(90)
        yield server, tmp_path / "state"
    finally:
        server.stop(30)


def _json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def _family(server: ServerProcess) -> list[psutil.Process]:
    return psutil.Process(server.pid).children(recursive=True)


def _all_gone(family: list[psutil.Process]) -> None:
    wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family), 60)


def test_roles_work_come_back_after_a_kill_and_stop_in_order(site: tuple[ServerProcess, Path]) -> None:
    server, folder = site
    wait_for(lambda: [row["name"] for row in _json(f"{server.url}/api/fleet/workers")] == ["a"], 60)
    wait_for(lambda: "program.clock  | a word" in server.output, 30)
    wait_for(lambda: "fleet.control  | " in server.output, 30)

    again = subprocess.run(  # the same roles from the same folder
        [sys.executable, "-m", "fieldstation", "up", folder.parent / "site.toml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert again.returncode == 1
    assert f"runs already, as process {server.pid}" in again.stderr

    for role in ("fleet.worker.a", "fleet.control"):
        before = read_status(folder)[role]
        os.kill(int(str(before["pid"])), signal.SIGKILL)
        wait_for(lambda role=role: read_status(folder)[role]["restarts"] == 1, 60)
        wait_for(lambda role=role: read_status(folder)[role]["state"] == "running", 60)
    assert "fleet.worker.a ended (was killed by signal 9); starting it again" in server.output
    wait_for(lambda: [row["state"] for row in _json(f"{server.url}/api/fleet/workers")] == ["online"], 60)

    family = _family(server)
    assert server.stop(30) == 0
    _all_gone(family)
    assert {status["state"] for status in read_status(folder).values()} == {"stopped"}


def test_one_file_runs_on_two_machines_and_a_killed_supervisor_leaves_no_role_behind(tmp_path: Path) -> None:
    path = _site(tmp_path, free_port(), free_port())
    text = path.read_text().replace("[fleet.worker.a]", '[fleet.worker.a]\nmachine = "bench"')
    path.write_text(
        text.replace('name = "hill"', 'name = "hill"\nmachine = "server"')
        + 'machine = "bench"\n[machines]\nserver = "127.0.0.1"\nbench = "127.0.0.1"\n'
    )
    server = ServerProcess(["fieldstation", "up", path, "--machine", "server"])
    bench = ServerProcess(["fieldstation", "up", path, "--machine", "bench"])
    try:
        url = server.wait_ready(90)
        bench.wait_ready(90)
        wait_for(lambda: [row["name"] for row in _json(f"{url}/api/fleet/workers")] == ["a"], 60)
        assert len(_family(server)) == 1  # control alone
        wait_for(lambda: len(_family(bench)) >= 3, 60)  # worker, its boards, the program
        family = _family(bench)
        os.kill(bench.pid, signal.SIGKILL)
        _all_gone(family)
        wait_for(lambda: [row["state"] for row in _json(f"{url}/api/fleet/workers")] != ["online"], 60)
    finally:
        server.stop(30)
        bench.stop(30)


def test_a_role_that_cannot_start_is_one_sentence_and_nothing_runs(tmp_path: Path) -> None:
    taken = free_port()
    path = _site(tmp_path, taken, free_port())
    import socket

    with socket.create_server(("127.0.0.1", taken)):
        done = subprocess.run(
            [sys.executable, "-m", "fieldstation", "up", path, "--only", "fleet.control"],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fieldstation: The role fleet.control cannot start: Cannot listen on 127.0.0.1 port")
    assert "ready" not in done.stdout
