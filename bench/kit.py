"""The kit against the raw thing: sendfile, sqlite3, stdlib logging, paho; and what importing it costs."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from rows import Row, alternate, main

from fieldstation.core.errors import FieldstationError
from fieldstation.flow.prefect_api import PrefectApi
from fieldstation.kit.database import Database
from fieldstation.kit.logs import get_logger
from fieldstation.kit.transfer import receive_file, send_file
from fieldstation.testing import ServerProcess, free_port, mosquitto, program, wait_for

MB = 1 << 20
SIZE = int(os.environ.get("BENCH_KIT_MB", "1024")) * MB


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def over_loopback(send: Callable[[socket.socket], object], receive: Callable[[socket.socket], object]) -> float:
    """Seconds to send and receive over one TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
    with sender, receiver:
        thread = threading.Thread(target=send, args=(sender,))
        os.sync()  # what the measurement before left to write is not ours
        started = time.perf_counter()
        thread.start()
        receive(receiver)
        thread.join()
        return time.perf_counter() - started


def transfer(folder: Path) -> list[Row]:
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        block = os.urandom(MB)
        for _ in range(SIZE // MB):
            file.write(block)

    def raw(durable: bool) -> float:
        def receive(sock: socket.socket) -> None:
            buffer = memoryview(bytearray(MB))
            with target.open("wb", buffering=0) as file:
                while count := sock.recv_into(buffer):
                    file.write(buffer[:count])
                if durable:
                    os.fsync(file.fileno())

        def send(sock: socket.socket) -> None:
            with source.open("rb") as file:
                sock.sendfile(file)
            sock.shutdown(socket.SHUT_WR)

        target.unlink(missing_ok=True)
        return SIZE / over_loopback(send, receive) / 1e9

    def ours(durable: bool) -> float:
        target.unlink(missing_ok=True)
        with mock.patch("os.fsync", os.fsync if durable else lambda _: None):
            return SIZE / over_loopback(lambda s: send_file(s, source), lambda s: receive_file(s, target)) / 1e9

    rows = []
    for durable, words in ((True, "both with fsync"), (False, "both without fsync")):
        pair = (lambda durable=durable: ours(durable)), (lambda durable=durable: raw(durable))
        mine, limit, ratio = alternate(*pair, rounds=5)
        what = f"send_file, receive_file: {SIZE // MB} MiB over loopback, {words}"
        rows.append(Row(what, f"{mine:.2f} GB/s", f"{limit:.2f} GB/s, sendfile to recv_into and file", ratio, ">= 0.8"))
    hashing = timed(lambda: hashlib.sha256(bytes(256 * MB))) / 256
    rows.append(Row("SHA-256 of the sessions", f"{1 / hashing / 1e3:.2f} GB/s", "it bounds a session"))
    return rows


@dataclass
class Reading:
    time: datetime
    device: str
    celsius: float
    unit: str


def database(folder: Path, count: int = 50_000) -> list[Row]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    readings = [Reading(start + timedelta(seconds=n), "pump", n / 2, "C") for n in range(count)]
    numbers = iter(range(1_000))

    def raw() -> float:
        connection = sqlite3.connect(folder / f"raw{next(numbers)}.db", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE r (time INTEGER, device TEXT, celsius REAL, unit TEXT)")
        connection.execute("CREATE INDEX i ON r (time)")
        base = int(start.timestamp())
        started = time.perf_counter()
        for first in range(0, count, 500):
            rows = [((base + n) * 10**9, "pump", n / 2, "C") for n in range(first, first + 500)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO r VALUES (?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        spent = time.perf_counter() - started
        connection.close()
        return count / spent

    def single() -> float:
        with Database(folder / f"single{next(numbers)}.db") as db:
            table = db.table(Reading)
            started = time.perf_counter()
            for reading in readings:
                table.append(reading, wait=False)
            table.flush()
            return count / (time.perf_counter() - started)

    def many() -> float:
        with Database(folder / f"many{next(numbers)}.db") as db:
            table = db.table(Reading)
            started = time.perf_counter()
            for first in range(0, count, 500):
                table.append_many(readings[first : first + 500])
            return count / (time.perf_counter() - started)

    rows = []
    for what, ours in (("append_many, 500 at a time", many), ("append(wait=False), one by one, then flush", single)):
        mine, limit, ratio = alternate(ours, raw)
        text = f"{limit:,.0f} rows/s, sqlite3 executemany, 500 a commit"
        rows.append(Row(f"database {what}", f"{mine:,.0f} rows/s", text, ratio, ">= 0.5"))
    return rows


def logs(folder: Path, count: int = 50_000) -> list[Row]:
    numbers = iter(range(1_000))
    sys.stdout.flush()
    keep, nowhere = sys.stdout, Path(os.devnull).open("w")  # noqa: SIM115 - for the process's life

    def raw() -> float:
        logger = logging.getLogger("raw")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        handler = logging.FileHandler(folder / f"raw{next(numbers)}.log")
        handler.setFormatter(logging.Formatter("%(asctime)s - [%(levelname)s] - %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
        return _log(logger, count)

    def ours(console: bool, background: bool = False) -> float:
        logger = get_logger(f"ours{next(numbers)}", folder=folder, console=console, background=background)
        sys.stdout = nowhere
        try:
            return _log(logger, count)
        finally:
            sys.stdout = keep

    rows = []
    for what, call in (
        ("file only", lambda: ours(False)),
        ("file and stdout", lambda: ours(True)),
        ("file only, in the background", lambda: ours(False, True)),
    ):
        mine, limit, ratio = alternate(call, raw)
        promise = ">= 0.7" if what == "file only" else ""
        rows.append(
            Row(f"get_logger: {what}", f"{mine:,.0f} lines/s", f"{limit:,.0f} lines/s, FileHandler", ratio, promise)
        )
    return rows


def _log(logger: logging.Logger, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        logger.info("reading %d of pump %s", number, "a")
    for handler in logger.handlers:
        handler.flush()
    spent = time.perf_counter() - started
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    return count / spent


PAHO = """
import sys, threading, time
import paho.mqtt.client as paho
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
done, count, ready = threading.Event(), 5000, threading.Event()
acknowledged = []
client.on_connect = lambda *_: ready.set()
client.on_publish = lambda *_: (acknowledged.append(1), len(acknowledged) == count and done.set())
client.connect("127.0.0.1", int(sys.argv[1])); client.loop_start(); ready.wait()
started = time.perf_counter()
for n in range(count): client.publish("t", bytes(100), 1)
done.wait()
print(count / (time.perf_counter() - started))
client.disconnect()
"""
OURS = """
import asyncio, sys, time
from fieldstation.kit.mqtt import MqttClient, MqttSettings
async def main(count=5000):
    async with MqttClient(MqttSettings(port=int(sys.argv[1]))) as client:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for n in range(count): group.create_task(client.publish("t", bytes(100), 1))
        print(count / (time.perf_counter() - started))
asyncio.run(main())
"""


def mqtt(folder: Path) -> list[Row]:
    def rate(script: str, port: int) -> float:
        return float(subprocess.run([sys.executable, "-c", script, str(port)], check=True, capture_output=True).stdout)

    with mosquitto(folder / "mosquitto", settings="allow_anonymous true\nset_tcp_nodelay true") as broker:
        mine, limit, ratio = alternate(lambda: rate(OURS, broker.port), lambda: rate(PAHO, broker.port))
    return [
        Row("mqtt publish, QoS 1, each awaited, 20 in flight", f"{mine:,.0f} msg/s", f"{limit:,.0f} msg/s, paho", ratio)
    ]


def workers(folder: Path) -> list[Row]:
    """The memory of both workers while they poll one Prefect server, each its pool."""
    port = free_port()
    env = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "XDG_STATE_HOME": str(folder),
    }
    api = PrefectApi(env["PREFECT_API_URL"])
    prefect = program("prefect")
    command = [prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    started = [ServerProcess(command, env=env)]

    def polls(pool: str) -> bool:
        found = api.call("POST", f"/work_pools/{pool}/workers/filter", {})
        return bool(found) and found[0]["status"] == "ONLINE"

    def megabytes(process: ServerProcess) -> float:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def answers() -> bool:
        try:
            return api.call("GET", "/health") is True
        except FieldstationError:
            return False

    try:
        wait_for(answers, 180, every_s=0.5)
        for pool in ("theirs", "light"):
            api.call("POST", "/work_pools/", {"name": pool, "type": "process"})
        started.append(ServerProcess([prefect, "worker", "start", "--pool", "theirs"], env=env))
        started.append(ServerProcess(["fieldstation", "flow", "worker", "--pool", "light"], env=env))
        for pool in ("theirs", "light"):
            wait_for(lambda pool=pool: polls(pool), 120, every_s=0.5)
        theirs, ours = (megabytes(process) for process in started[1:])
    finally:
        for process in reversed(started):
            process.kill()
    limit = f"{theirs:.1f} MB, `prefect worker start`"
    return [Row("`fieldstation flow worker`, idle: memory", f"{ours:.1f} MB", limit, ours / theirs, "< 30 MB")]


def imports() -> list[Row]:
    def milliseconds(statement: str) -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", statement], check=True)) * 1e3

    rows = []
    for statement in (
        "import fieldstation.kit",
        "from fieldstation.kit import send_file",
        "from fieldstation.kit import MqttClient",
    ):
        mine, bare, ratio = alternate(lambda s=statement: milliseconds(s), lambda: milliseconds("pass"), rounds=15)
        promise = "< 30 ms more than bare" if statement == "import fieldstation.kit" else ""
        rows.append(Row(f"`{statement}`", f"{mine:.0f} ms", f"{bare:.0f} ms, bare Python", ratio, promise))
    return rows


def measure() -> list[Row]:
    rows = []
    for bench in (transfer, database, logs, mqtt, workers):
        with tempfile.TemporaryDirectory() as folder:
            rows += bench(Path(folder))
    return rows + imports()


if __name__ == "__main__":
    main("kit", measure)
