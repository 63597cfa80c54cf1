"""Stations as their users run them, producers, and a server that counts by id."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from fieldstation.station.agent import WriterLine
from fieldstation.station.store import Reader
from fieldstation.testing import wait_for
from fieldstation.testing.line import Line
from fieldstation.testing.station import StationProcess

PRODUCER = """
import sys, time
from fieldstation.station import DataMessageBody, MessagingAgent
first, count, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
agent = MessagingAgent()
for n in range(first, first + count):
    agent.add_message(DataMessageBody(data={"n": n}))
    print(n, flush=True)  # only now is it acknowledged
    time.sleep(pause)
"""


class Counter:
    """Stands for the server: subscribes with QoS 1 and keeps every `n` that arrives, and everything else."""

    def __init__(self, port: int, topic: str = "v1/devices/me/telemetry") -> None:
        self.numbers: list[int] = []
        self.messages: list[dict[str, Any]] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "counter", clean_session=False)
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_for(self._client.is_connected)

    def _take(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        entry = json.loads(message.payload)
        for element in entry if isinstance(entry, list) else [entry]:
            values = element.get("values", element.get("value", {}))
            if "n" in values:
                self.numbers.append(values["n"])
            else:
                self.messages.append(element)

    def publish(self, topic: str, payload: Any, retain: bool = False) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.publish(topic, data, 1, retain).wait_for_publish(5)

    def answers(self) -> list[tuple[int, str]]:
        """(revision, status) of the config answers, in order; ThingsBoard's form."""
        found = self._configurations()
        return [(a["config"]["config"]["general"]["config_revision"], a["status"]) for a in found]

    def reasons(self) -> list[str]:
        return [a["config"]["reason"] for a in self._configurations() if "reason" in a["config"]]

    def _configurations(self) -> list[dict[str, Any]]:
        # QoS 1 may bring one and the same message again; another answer would have another time.
        found = {json.dumps(m): m["values"]["configuration"] for m in self.messages if "configuration" in m["values"]}
        return list(found.values())

    def close(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()


@pytest.fixture
def line(mosquitto) -> Iterator[Line]:
    """The line between station and broker."""
    made = Line(mosquitto.port)
    yield made
    made.close()


@pytest.fixture
def count_at() -> Iterator[Callable[[int], Counter]]:
    """Make a counter at a broker of the test's own."""
    made: list[Counter] = []

    def make(port: int) -> Counter:
        made.append(Counter(port))
        return made[-1]

    yield make
    for counter in made:
        counter.close()


@pytest.fixture
def counter(mosquitto, count_at) -> Counter:
    return count_at(mosquitto.port)


def config_for(port: int | None, *, provider: str = "thingsboard", **changes: Any) -> dict[str, Any]:
    backend = None
    if port is not None:
        connection = {"host": "127.0.0.1", "port": port, "client_id": "sut", "username": "u", "password": "s3cret-pw"}
        backend = {"provider": provider, "mqtt_connection": connection, "max_drain_time": 30}
    return {
        "general": {"config_revision": 1, "software_version": "1.0.0", "system_identifier": "roof"},
        "logging_verbosity": {"file_archive": "DEBUG", "console_prints": "INFO", "message_sending": "WARNING"},
        "backend": backend,
        "health": {"settle_seconds": 0.5, "config_window_seconds": 12},
    } | changes


@pytest.fixture(name="config_for")
def config_maker() -> Callable[..., dict[str, Any]]:
    return config_for


@pytest.fixture
def make_station(tmp_path: Path) -> Iterator[Callable[..., StationProcess]]:
    made: list[StationProcess] = []

    def make(config: dict[str, Any], procedures: dict[str, str] | None = None, **modules: str) -> StationProcess:
        folder = tmp_path / f"station{len(made)}"
        folder.mkdir()
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        made.append(StationProcess(folder, config, procedures))
        return made[-1]

    yield make
    for station in made:
        if station.running:
            station.server.kill()


class Store:
    """A station's data folder with an agent's own writer, for the tests that need no supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.line = WriterLine(folder)
        self.environment = {"IVY_DATA_DIR": str(folder)}

    def produce(self, first: int, count: int, pause_s: float = 0.0) -> subprocess.Popen[str]:
        import os

        return subprocess.Popen(
            [sys.executable, "-c", PRODUCER, str(first), str(count), str(pause_s)],
            env={**os.environ, **self.environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip

    def writer_pid(self) -> int:
        return int(self.line.ask(("ping",)))

    def queued(self) -> list[int]:
        reader = Reader(self.folder / "active-message-queue.sqlite3")
        rows = reader.next_rows(1_000_000)
        reader.close()
        return [json.loads(row.body)["data"]["n"] for row in rows if row.rank == 0]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "data")
    yield made
    made.line.close()


class FileServer(http.server.ThreadingHTTPServer):
    """Serves a folder; the file whose name is in `endless` never ends, whatever the metadata say."""

    def __init__(self, folder: Path) -> None:
        self.endless = ""
        super().__init__(("127.0.0.1", 0), functools.partial(FileHandler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class FileHandler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.server.endless and self.path.endswith(self.server.endless):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                return
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def file_server() -> Iterator[Callable[[Path], FileServer]]:
    made: list[FileServer] = []

    def make(folder: Path) -> FileServer:
        made.append(FileServer(folder))
        return made[-1]

    yield make
    for server in made:
        server.shutdown()
        server.server_close()
