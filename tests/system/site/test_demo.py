"""`fieldstation demo`: one command, a whole simulated site, every count checked, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest

from fieldstation.kit.mqtt import MqttClient, MqttSettings
from fieldstation.site.bridges.reading import rows
from fieldstation.site.demo.table import joined
from fieldstation.site.file import kind_of, read
from fieldstation.site.supervise import read_status
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


@pytest.mark.timeout(300)
async def test_it_waits_for_a_yes_listens_where_the_table_says_and_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo = ServerProcess([*DEMO, "--port", "0", "--dir", folder])
    try:
        demo.wait_ready(150)  # printed when the approval waits
        wait_for(lambda: "The report waits for a yes" in demo.output, 30)
        assert not (folder / "report").exists()
        children = psutil.Process(demo.pid).children(recursive=True)
        assert len(children) >= 13  # seven roles, and what they start

        assert _listening(folder) == _documented()
        settings = MqttSettings(
            host="127.0.0.1", port=tomllib.loads((folder / "site.toml").read_text())["nats"]["mqtt_port"]
        )
        async with asyncio.timeout(60), MqttClient(settings) as mqtt, mqtt.messages("lab/+", 1) as messages:
            await mqtt.publish("lab/door", b"open", 1)
            assert (await anext(aiter(messages))).payload == b"open"

        os.kill(demo.pid, signal.SIGTERM)
        assert await asyncio.to_thread(demo.wait, 60) in (0, 130)
        wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 60)
    finally:
        demo.kill()


def _listening(folder: Path) -> set[tuple[str, str]]:
    """Return (table of the role, setting) of every TCP port that a role listens at; all are loopback."""
    site = read(folder / "site.toml")
    found = set()
    for name, status in read_status(folder / "state").items():
        role = psutil.Process(int(str(status["pid"])))
        for process in (role, *role.children(recursive=True)):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), (name, connection)
                    found.add((kind_of(name), _setting(site.roles[name], kind_of(name), connection.laddr.port)))
    return found


def _setting(role: object, kind: str, port: int) -> str:
    for key in ("port", "mqtt_port", "metrics_port"):
        if getattr(role, key, None) == port:
            return key
    return {"station": "health.port", "pipeline": "runner.health.port"}.get(kind, f"unknown port {port}")


def _documented() -> set[tuple[str, str]]:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "ports.md").read_text()
    rows = re.findall(r"^\| `([a-z.]+)` \| `([a-z_.]+)`[^|]*\| ([^|]+) \|", text, re.MULTILINE)
    return {(role, setting) for role, setting, default in rows if default != "none"}
