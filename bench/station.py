"""The station: storing, draining, reacting, against raw sqlite3 and raw paho in the same run; memory of an idle one."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
from rows import Row, alternate, main

from fieldstation.station.messages import DataMessageBody
from fieldstation.station.store import NewRow, Reader, Store, open_for_writing
from fieldstation.testing import mosquitto, wait_for
from fieldstation.testing.station import StationProcess

BODY = {"temperature": 21.5, "pressure": 1013.25}
SPAWN = multiprocessing.get_context("spawn")


def raw_connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS m (i INTEGER PRIMARY KEY, t REAL, body TEXT)")
    return connection


def raw_rate(connection: sqlite3.Connection, count: int, batch: int) -> float:
    """Readings as text, in a table of two columns: what somebody would write who is promised nothing more."""
    started = time.perf_counter()
    for _ in range(count // batch):
        rows = [(time.time(), json.dumps(BODY)) for _ in range(batch)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO m (t, body) VALUES (?, ?)", rows)
        connection.execute("COMMIT")
    return count / (time.perf_counter() - started)


class SameTables:
    """The same rows as ours, their unique ids, times and deliveries included, by nothing but sqlite3 in one process."""

    def __init__(self, path: Path) -> None:
        self._connection = open_for_writing(path)
        self._store = Store(self._connection)
        self._count = 0

    def rate(self, count: int, batch: int) -> float:
        started = time.perf_counter()
        for _ in range(count // batch):
            first, now = self._count, time.time()
            self._count += batch
            rows = [(f"raw-{n:012x}", now, 0, json.dumps(BODY), 1) for n in range(first, first + batch)]
            self._connection.execute("BEGIN IMMEDIATE")
            self._store.append(rows)
            self._connection.execute("COMMIT")
        return count / (time.perf_counter() - started)


def produce(folder: str, orders, done) -> None:
    from fieldstation.station import DataMessageBody, MessagingAgent

    agent = MessagingAgent(Path(folder))
    agent.add_message(DataMessageBody(data=BODY))
    done.put((0.0, 0.0))
    while (order := orders.get()) is not None:
        count, batch = order
        started = time.perf_counter()
        if batch == 1:
            for _ in range(count):
                agent.add_message(DataMessageBody(data=BODY))
        else:
            for _ in range(count // batch):
                agent.add_messages([DataMessageBody(data=BODY) for _ in range(batch)])
        done.put((started, time.perf_counter()))
    agent.teardown()


class Producers:
    """A station's writer, and processes that store messages when they are told to."""

    def __init__(self, folder: Path, count: int) -> None:
        self._orders = [SPAWN.SimpleQueue() for _ in range(count)]
        self._done = SPAWN.SimpleQueue()
        self._workers = [SPAWN.Process(target=produce, args=(str(folder), o, self._done)) for o in self._orders]
        for worker in self._workers:
            worker.start()
        for _ in self._workers:
            self._done.get()

    def rate(self, processes: int, count: int, batch: int = 1) -> float:
        """Messages a second of the first `processes` together, each storing `count`."""
        for orders in self._orders[:processes]:
            orders.put((count, batch))
        spans = [self._done.get() for _ in range(processes)]
        return processes * count / (max(end for _, end in spans) - min(start for start, _ in spans))

    def end(self) -> None:
        for orders in self._orders:
            orders.put(None)
        for worker in self._workers:
            worker.join()


def storing(folder: Path) -> list[Row]:
    # Many short turns: what else the machine does then hits both sides alike.
    producers, raw = Producers(folder / "data", 4), raw_connection(folder / "raw.sqlite3")
    rows = []
    ours, limit, ratio = alternate(lambda: producers.rate(1, 100), lambda: raw_rate(raw, 100, 1), rounds=41)
    rows.append(Row("`add_message`, one process", f"{ours:.0f}/s", f"{limit:.0f}/s, raw WAL+FULL", ratio, ">= 0.5"))
    turns = [(producers.rate(4, 100), producers.rate(1, 100), raw_rate(raw, 100, 1)) for _ in range(41)]
    four, one, limit = (statistics.median(column) for column in zip(*turns, strict=True))
    rows += [
        Row("`add_message`, four processes", f"{four:.0f}/s", f"{limit:.0f}/s, raw, one process",
            statistics.median(f / r for f, _, r in turns), ">= 1"),
        Row("four processes against one", f"{four:.0f}/s", f"{one:.0f}/s, ours, one process",
            statistics.median(f / o for f, o, _ in turns), ">= 2"),
    ]  # fmt: skip
    ours, limit, ratio = alternate(lambda: producers.rate(1, 2_000, 100), lambda: raw_rate(raw, 2_000, 100), rounds=31)
    rows.append(
        Row("`add_messages`, 100 at once", f"{ours:.0f}/s", f"{limit:.0f}/s, raw, 100 at once", ratio, ">= 0.5")
    )
    tables = SameTables(folder / "tables.sqlite3")
    ours, limit, ratio = alternate(lambda: producers.rate(1, 2_000, 100), lambda: tables.rate(2_000, 100), rounds=31)
    rows.append(Row("... against the same tables", f"{ours:.0f}/s", f"{limit:.0f}/s, raw, 100 at once", ratio))
    producers.end()
    return rows


def fill(folder: Path, count: int) -> Path:
    path = folder / "active-message-queue.sqlite3"
    connection = open_for_writing(path)
    connection.execute("PRAGMA synchronous=OFF")
    store = Store(connection)
    body = DataMessageBody(data=BODY).model_dump_json()
    for start in range(0, count, 10_000):
        connection.execute("BEGIN")
        for first in range(start, min(start + 10_000, count), 1000):
            last = min(first + 1000, count)
            store.add([NewRow(f"{n:x}", 1.7e9 + n, int(n % 10 == 0), body) for n in range(first, last)])
        connection.execute("COMMIT")
    connection.close()
    return path


def reading(folder: Path) -> list[Row]:
    small, large = Reader(fill(folder / "small", 1_000)), Reader(fill(folder / "large", 1_000_000))

    def cost(reader: Reader) -> float:
        started = time.perf_counter()
        for _ in range(200):
            reader.next_rows(50, (400, 0))
        return (time.perf_counter() - started) / 200

    ours, limit, ratio = alternate(lambda: cost(large), lambda: cost(small), rounds=9)
    return [Row("next 50 rows of 1,000,000 queued", f"{ours * 1e6:.0f} us", f"{limit * 1e6:.0f} us, of 1,000", ratio,
                "the same")]  # fmt: skip


def config(port: int, **changes: object) -> dict[str, object]:
    connection = {"host": "127.0.0.1", "port": port, "client_id": "bench", "username": "u", "password": "pass"}
    return {
        "general": {"config_revision": 1, "software_version": "1.0.0", "system_identifier": "bench"},
        "logging_verbosity": {"file_archive": "INFO", "console_prints": None, "message_sending": "WARNING"},
        "backend": {"provider": "thingsboard", "mqtt_connection": connection},
        "health": {"settle_seconds": 0.2},
    } | changes


def raw_drain(port: int, count: int) -> float:
    payload = json.dumps({"ts": 1700000000000, "values": BODY})
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "raw")
    client.max_inflight_messages_set(20)
    client.max_queued_messages_set(0)
    slots, arrived, everything = threading.Semaphore(20), [0], threading.Event()

    def acknowledged(*_: object) -> None:
        arrived[0] += 1
        slots.release()
        if arrived[0] == count:
            everything.set()

    client.on_publish = acknowledged
    client.connect("127.0.0.1", port)
    client.loop_start()
    wait_for(client.is_connected)
    started = time.perf_counter()
    for _ in range(count):
        slots.acquire()
        client.publish("v1/devices/me/telemetry", payload, 1)
    everything.wait(60)
    rate = count / (time.perf_counter() - started)
    client.loop_stop()
    client.disconnect()
    return rate


IDLE = "import time\nfrom fieldstation.station import MessagingAgent\ndef run(config, logger):\n    MessagingAgent()\n    time.sleep(9999)\n"  # noqa: E501 - a module in one line


@contextlib.contextmanager
def station(folder: Path, settings: dict[str, object], **modules: str) -> Iterator[StationProcess]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    made = StationProcess(folder, settings, {name: f"{name}:run" for name in modules})
    made.start()
    try:
        yield made
    finally:
        made.stop(60)


def our_drain(folder: Path, port: int, count: int) -> float:
    fill(folder / "data", count)
    with station(folder, config(port)) as made:
        wait_for(lambda: made.process("backend").get("details", {}).get("delivered", 0) > count // 10, 60)
        first, started = made.process("backend")["details"]["delivered"], time.perf_counter()
        wait_for(lambda: made.snapshot()["queues"]["backend"]["depth"] == 0, 120, every_s=0.01)
        last, ended = made.process("backend")["details"]["delivered"], time.perf_counter()
    return (last - first) / (ended - started)


def draining(folder: Path) -> list[Row]:
    number = iter(range(1000))
    with mosquitto(folder / "broker") as broker:
        ours, limit, ratio = alternate(
            lambda: our_drain(folder / f"drain{next(number)}", broker.port, 10_000),
            lambda: raw_drain(broker.port, 10_000),
            rounds=4,
        )
    return [Row("drain to a local broker", f"{ours:.0f}/s", f"{limit:.0f}/s, raw paho, 20 in flight", ratio,
                ">= 0.4; today's system 6.6/s")]  # fmt: skip


def proportional_mb(pid: int) -> float:
    return int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1]) / 1000


BARE = "import pydantic, sqlite3, asyncio, sys; sys.stdin.read()"


def reacting(folder: Path) -> list[Row]:
    rows = []
    stamp = "import time\nfrom pathlib import Path\nfrom fieldstation.station import DataMessageBody, MessagingAgent\ndef run(config, logger):\n    MessagingAgent().add_message(DataMessageBody(data={'n': 1}))\n    Path('first').write_text(str(time.time()))\n    time.sleep(9999)\n"  # noqa: E501 - a module in one line
    with mosquitto(folder / "broker2") as broker:
        answers: list[tuple[float, str]] = []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, "server")

        def take(_client: object, _data: object, message: paho.MQTTMessage) -> None:
            values = json.loads(message.payload)["values"]
            if "configuration" in values:
                answers.append((time.perf_counter(), values["configuration"]["status"]))

        client.on_message = take
        client.on_connect = lambda c, *_: c.subscribe("v1/devices/me/telemetry", 1)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        wait_for(client.is_connected)
        begun = time.time()
        with station(folder / "reacting", config(broker.port), stamp=stamp, idle=IDLE) as made:
            first = folder / "reacting" / "first"
            wait_for(lambda: first.exists() and first.read_text(), 30)
            rows.append(
                Row("start to first datapoint", f"{float(first.read_text()) - begun:.2f} s", "", None, "< 1.5 s")
            )
            wait_for(lambda: made.snapshot()["ok"], 30)
            time.sleep(2)
            pids = [made.server.pid, made.snapshot()["writer_pid"]]
            pids += [process["pid"] for process in made.snapshot()["processes"]]
            bare = [subprocess.Popen([sys.executable, "-c", BARE], stdin=subprocess.PIPE) for _ in range(4)]
            time.sleep(2)
            ours, limit = sum(map(proportional_mb, pids)), sum(proportional_mb(p.pid) for p in bare)
            for process in bare:
                process.communicate()
            rows.append(Row("idle: supervisor, writer, uplink, two procedures", f"{ours:.0f} MB PSS",
                            f"{limit:.0f} MB, four bare interpreters", ours / limit, "< 100 MB"))  # fmt: skip
            times = []
            for _ in range(5):
                first.unlink()
                pid = made.process("stamp")["pid"]
                killed = time.time()
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: first.exists() and first.read_text(), 30)
                times.append(float(first.read_text()) - killed)
                time.sleep(0.2)
            rows.append(Row("a killed procedure stores again after", f"{times[0]:.2f} s (first death)",
                            "", None, "< 1 s; today 14 to 17 s"))  # fmt: skip
            new = config(broker.port)
            new["general"] = {**new["general"], "config_revision": 2}
            answers.clear()
            pushed = time.perf_counter()
            client.publish("v1/devices/me/attributes", json.dumps({"configuration": new}), 1)
            wait_for(lambda: [a for a in answers if a[1] == "accepted"], 60)
            received, accepted = answers[0][0] - pushed, answers[-1][0] - pushed
            rows.append(Row("a pushed config is answered after", f"{received:.2f} s",
                            "", None, "< 1 s"))  # fmt: skip
            rows.append(Row("... and kept after (0.2 s settle time)", f"{accepted:.2f} s", "", None, ""))
        client.loop_stop()
        client.disconnect()
    return rows


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="fieldstation-bench-") as name:
        folder = Path(name)
        return storing(folder) + reading(folder) + draining(folder) + reacting(folder)


if __name__ == "__main__":
    main("station", measure)
