"""The tutorial, step by step, as somebody would type it; only the ports differ."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldstation.testing import ServerProcess, free_port

PAGE = Path(__file__).parents[2] / "docs/tutorials/share-boards.md"


def steps() -> Iterator[tuple[str, str]]:
    yield from re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(120)
def test_the_tutorial_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "FIELDSTATION_FLEET_CONTROL_PORT": str(port),
        "FIELDSTATION_FLEET_WORKER_PORT": "0",
        "FIELDSTATION_CONTROL": f"http://127.0.0.1:{port}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, value)
    servers: list[ServerProcess] = []
    shown: list[str] = []
    names: dict[str, object] = {}
    try:
        for language, text in steps():
            code = text.replace("localhost:8080", f"localhost:{port}").replace(".venv/bin/", "")
            if language == "python":
                exec(compile(code, str(PAGE), "exec"), names)
                shown.append(capsys.readouterr().out)
                continue
            for line in code.splitlines():
                if " fleet control" in line or " fleet worker " in line:
                    servers.append(ServerProcess(shlex.split(line)))
                    servers[-1].wait_ready(40)
                    continue
                done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, timeout=60)
                assert done.returncode == 0, f"{line}\n{done.stderr}"
                shown.append(done.stdout)
    finally:
        for server in reversed(servers):
            server.stop()
    whole = "\n".join(shown)
    assert len(re.findall(r"^\d{16} +(blinker|counter)\.bin +\d+", whole, re.MULTILINE)) == 4
    assert len(re.findall(r"\d+ pulses from (blinker|counter)\.bin on \d{16}", whole)) == 4 + 3
    assert "somebody" in whole
    assert "No devices became free within 1 s" in whole
