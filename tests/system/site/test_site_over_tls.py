"""A whole site over TLS: message server and its MQTT, frame server, panel, bridges. Control has another authority than
the rest, so that nobody trusts the one for the other.

Each bridge is a node of its own here; the demonstration has them in one process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.web.conftest import browser, tab, visit  # noqa: F401 - a fixture

from fieldstation.core.blocking import Portal
from fieldstation.kit.mqtt import MqttClient, MqttSettings
from fieldstation.kit.mqtt_model import tls_context
from fieldstation.site.bridges.reading import rows
from fieldstation.testing import ServerProcess, free_port, wait_for

pytestmark = [pytest.mark.needs("openssl"), pytest.mark.needs("chromium"), pytest.mark.timeout(240)]

SITE = """
[site]
name = "hill"
[site.environment]
SSL_CERT_FILE = "{folder}/control/ca.crt"
[nats]
port = {nats}
mqtt_port = {mqtt}
tls_certificate = "server.crt"
tls_key = "server.key"
tls_ca = "ca.crt"
[fleet.control]
port = {control}
tls_certificate = "control/server.crt"
tls_key = "control/server.key"
[fleet.worker.bench]
port = {worker}
simulate = 1
[station.roof]
dir = "roof"
[stream.camera]
port = {stream}
simulate = true
tls_certificate = "server.crt"
tls_key = "server.key"
tls_ca = "ca.crt"
[pipeline.night]
manifest = "krt.yaml"
"""
MANIFEST = """
version: v1.0.0
description: every bridge as a node of its own
workflows:
  - name: keep
    type: data
    processes:
      - {name: frames, type: trigger, image: "node:frames", config: {history: none}}
      - {name: stations, type: trigger, image: "node:stations", config: {kinds: "data,log"}}
      - {name: fleet, type: trigger, image: "node:fleet", config: {every_s: "0.2"}}
      - {name: table, type: exit, image: "node:archive", subscriptions: [frames, stations, fleet],
         config: {folder: table}}
"""
STATION = """
[project]
name = "roof"
version = "1.0.0"
[tool.fieldstation.station.procedures]
weather = "simulated_weather"
"""


def certify(folder: Path) -> None:
    """Make an authority, and a certificate of it for this machine's loopback."""
    folder.mkdir(exist_ok=True)

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-days", "2", "-subj", "/CN=lab", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *curve, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", *signing, "-out", "server.crt")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, int]]]:
    folder = tmp_path_factory.mktemp("site")
    certify(folder)
    certify(folder / "control")
    ports = {name: free_port() for name in ("nats", "mqtt", "control", "worker", "stream")}
    (folder / "site.toml").write_text(SITE.format(**ports, folder=folder))
    (folder / "krt.yaml").write_text(MANIFEST)
    (folder / "roof" / "config").mkdir(parents=True)
    (folder / "roof" / "pyproject.toml").write_text(STATION)
    connection = {"servers": [f"tls://127.0.0.1:{ports['nats']}"], "ca_file": str(folder / "ca.crt")}
    config = {
        "general": {"config_revision": 1, "software_version": "1.0.0", "system_identifier": "roof"},
        "logging_verbosity": {"file_archive": "INFO", "console_prints": "WARNING", "message_sending": "INFO"},
        "backend": {"provider": "nats", "nats_connection": connection, "max_drain_time": 1},
    }
    (folder / "roof" / "config" / "config.json").write_text(json.dumps(config))
    server = ServerProcess(["fieldstation", "up", folder / "site.toml"])
    try:
        server.wait_ready(120)
        yield folder, ports
    finally:
        server.kill()  # its roles end with it; how they stop in order is the business of other tests


def test_the_panel_shows_frames_and_stations(browser: Any, site: tuple[Path, dict[str, int]]) -> None:  # noqa: F811 - a fixture
    url = f"https://127.0.0.1:{site[1]['control']}"
    with tab(browser, url, ignore_https_errors=True) as page:
        visit(page, "streams")
        page.wait_for_function("() => [...document.querySelectorAll('canvas')].some(c => +c.dataset.drawn > 1)")
        visit(page, "stations")
        page.locator('tr[data-key="roof"]').get_by_text("ok", exact=True).wait_for()
        visit(page, "pipelines")
        page.get_by_role("img", name="Graph of night, keep").get_by_text("stations", exact=True).wait_for()


def test_each_bridge_alone_brings_its_messages_into_the_archive(site: tuple[Path, dict[str, int]]) -> None:
    archive = site[0] / "table" / "archive.sqlite3"

    def found() -> dict[str, list[dict[str, Any]]]:
        by_source: dict[str, list[dict[str, Any]]] = {}
        if archive.exists():
            for _, source, _, values in rows(archive):
                by_source.setdefault(source, []).append(values)
        return by_source

    wait_for(lambda: {"frames", "station", "fleet"} <= found().keys(), 90, every_s=0.3)
    wait_for(lambda: {values["kind"] for values in found()["station"]} >= {"data", "log"}, 60, every_s=0.3)
    came = found()
    assert {values["station"] for values in came["station"]} == {"roof"}
    assert any("temperature" in values for values in came["station"] if values["kind"] == "data")
    assert "device added" in {values["action"] for values in came["fleet"]}
    assert all(values["max"] >= values["mean"] >= values["min"] for values in came["frames"])


def test_mqtt_of_the_message_server_speaks_tls_too(site: tuple[Path, dict[str, int]]) -> None:
    folder, ports = site
    settings = MqttSettings(host="127.0.0.1", port=ports["mqtt"], tls=tls_context(folder / "ca.crt"))

    async def heard() -> bytes:
        async with asyncio.timeout(60), MqttClient(settings) as mqtt, mqtt.messages("lab/+", 1) as messages:
            await mqtt.publish("lab/door", b"open", 1)
            return (await anext(aiter(messages))).payload

    assert Portal().call(heard()) == b"open"
