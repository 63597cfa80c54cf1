"""The tutorial, step by step, as somebody would type it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/tutorials/station.md"


@pytest.mark.timeout(150)
def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    script = "set -e\n"
    for text in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        script += text.replace(".venv/bin/", "")
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=140,
            check=False,
        )
    finally:
        subprocess.run(
            [sys.executable, "-m", "fieldstation", "station", "stop", str(tmp_path / "roof")],
            env=environment, capture_output=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "started the station" in done.stdout
    assert "timestamp,message_body" in done.stdout
    assert "accepted" in done.stdout
    assert "refused, as it should be" in done.stdout
    assert re.search(r"thermometer +procedure +\d+ +\d+ s +[1-9]", done.stdout), done.stdout
    assert "the station has stopped" in done.stdout
