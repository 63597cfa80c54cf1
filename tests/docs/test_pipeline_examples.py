"""The pipeline examples run as they stand, and the tutorial's commands do what it says."""

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from fieldstation.pipeline.broker import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "pipeline"
FIELDSTATION = [sys.executable, "-m", "fieldstation"]
pytestmark = pytest.mark.timeout(180)


def eventually(check, deadline_s=60.0):
    deadline = time.monotonic() + deadline_s
    while not (result := check()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.1)
    return result


@contextlib.contextmanager
def up(folder, **environment):
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [*FIELDSTATION, "pipeline", "up", "--sync", "10s"],
            cwd=folder,
            env={**os.environ, "XDG_STATE_HOME": str(folder / "state"), **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout.readline().startswith("ready "), (folder / "up.log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def listening(port):
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_readings_from_three_triggers_end_in_a_table(tmp_path):
    folder = shutil.copytree(EXAMPLES / "readings", tmp_path / "readings")
    text = (folder / "krt.yaml").read_text()
    (folder / "krt.yaml").write_text(text.replace('period_s: "60"', 'period_s: "1"'))
    port = free_port()

    def stored():
        with contextlib.closing(sqlite3.connect(folder / "table" / "readings.sqlite")) as database:
            try:
                rows = database.execute("SELECT source, count(*), sum(value) FROM reading GROUP BY source")
                return {source: (count, total) for source, count, total in rows}
            except sqlite3.OperationalError:
                return {}

    with up(folder, WEBHOOK_PORT=str(port)):
        eventually(lambda: listening(port))
        for value in range(120):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/readings",
                json.dumps({"value": value}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 202
        (folder / "inbox" / "day.part").write_text("\n".join("0.5" for _ in range(30)))
        (folder / "inbox" / "day.part").rename(folder / "inbox" / "day.csv")
        eventually(lambda: {"webhook", "folder", "clock"} <= set(stored()) and stored()["folder"][0] == 30)
        eventually(lambda: stored()["webhook"] == (120, sum(range(120))))
        assert stored()["folder"] == (30, 15.0)
        assert (folder / "inbox" / "done" / "day.csv").exists()
    import pyarrow.parquet

    files = list((folder / "table").glob("*.parquet"))
    values = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
    assert {row["id"] for row in values if row["source"] == "folder"} == {f"day.csv-{n}" for n in range(30)}
    assert len(files) < 120  # they came in batches


def test_the_tutorial_does_what_it_says(tmp_path):
    tutorial = (ROOT / "docs/tutorials/pipeline.md").read_text()
    files = dict(re.findall(r"`(\w+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", tutorial, flags=re.DOTALL))
    assert set(files) == {"krt.yaml", "door.py", "mix.py", "out.py", "test_mix.py"}
    folder = tmp_path / "hello"
    folder.mkdir()
    for name, text in files.items():
        assert text == (EXAMPLES / "hello" / name).read_text(), f"{name} differs from the example"
        (folder / name).write_text(text)
    commands = re.findall(r"^fieldstation pipeline (.*)$", tutorial, flags=re.MULTILINE)
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}

    def run(command):
        done = subprocess.run(
            [*FIELDSTATION, "pipeline", *command.split()], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "test_mix.py"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert commands[0] == "check"
    assert "in order" in run("check")
    assert commands[1] == "up"
    with up(folder) as process:
        log = folder / "state/fieldstation/pipeline/hello/logs/hello-door-1.log"
        eventually(lambda: "the answer is HELLO" in log.read_text())
        for command in commands[2:]:
            run(command)
        assert process.wait(30) == 0
    assert commands[-1] == "down --purge"
