"""kill -9 of producers, writer, uplink and supervisor: what was acknowledged is there, once in the store."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time

import pytest

from fieldstation.station.agent import archive_rows
from fieldstation.station.archive import day_of
from fieldstation.testing import wait_for

pytestmark = pytest.mark.timeout(240)


def rounds(store, count, seed):
    """Kill writers and producers in turn at random moments; return what was acknowledged."""
    chance = random.Random(seed)
    acknowledged = []
    for number in range(count):
        producers = [store.produce(number * 100_000 + 10_000 * i, 5_000) for i in range(2)]
        for producer in producers:
            acknowledged.append(int(producer.stdout.readline()))
        time.sleep(chance.random() * 0.05)  # the moment of the kill is the point
        if number % 2:
            os.kill(store.writer_pid(), signal.SIGKILL)
            time.sleep(chance.random() * 0.05)
        for producer in producers:
            producer.kill()
            acknowledged += [int(line) for line in producer.stdout.read().splitlines(keepends=True) if line[-1] == "\n"]
            producer.wait()
            producer.stdout.close()
    return acknowledged


def check(store, acknowledged):
    for _ in range(3):
        store.line.ask(("ping",))  # what a killed producer had sent is taken in by then, acknowledged or not
    queued = store.queued()
    assert len(queued) == len(set(queued)), "a message is in the queue twice"
    assert set(acknowledged) <= set(queued), "an acknowledged message is missing"
    file = store.folder / "active-message-queue.sqlite3"
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        (stored,) = connection.execute("SELECT count(*) FROM message WHERE rank = 0").fetchone()
        days = {day_of(row[0]) for row in connection.execute("SELECT timestamp FROM message")}
    connection.close()
    assert stored == len(queued), "archive and queue disagree"
    archived = sum(len(archive_rows(store.folder, day)) for day in days)
    assert archived == len(queued), "the archive of the days and the queue disagree"


def test_producers_and_writer_are_killed_25_times_and_nothing_acknowledged_is_missing(store):
    check(store, rounds(store, 25, seed=1))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_producers_and_writer_are_killed_1000_times_and_nothing_acknowledged_is_missing(store):
    check(store, rounds(store, 1000, seed=2))


COUNTING = """
import itertools, time
from pathlib import Path
from fieldstation.station import DataMessageBody, MessagingAgent
def run(config, logger):
    agent = MessagingAgent()
    acknowledged = Path("acknowledged")
    first = time.time_ns()
    with acknowledged.open("a") as file:
        for n in itertools.count(first, 1):
            agent.add_message(DataMessageBody(data={"n": n}))
            file.write(f"{n}\\n")
            file.flush()
            time.sleep(0.002)
"""


def running_station_is_killed(make_station, config_for, line, counter, count, seed):
    chance = random.Random(seed)
    station = make_station(config_for(line.port), {"counting": "counting:run"}, counting=COUNTING).start()
    for number in range(count):
        wait_for(lambda: len(counter.numbers) > 5)
        victims = {p["name"]: p["pid"] for p in station.snapshot()["processes"] if p["pid"]}
        victims |= {"writer": station.snapshot()["writer_pid"], "supervisor": station.server.pid}
        victim = ["counting", "writer", "backend", "supervisor"][number % 4]
        time.sleep(chance.random() * 0.1)  # the moment of the kill is the point
        if victim in victims:
            os.kill(victims[victim], signal.SIGKILL)
        if victim == "supervisor":
            station.server.process.wait()
            station.start()
        before = len(counter.numbers)
        wait_for(lambda at=before: len(counter.numbers) > at, what=f"new readings after the death of {victim}")
    station.stop(60)
    text = (station.folder / "acknowledged").read_text()
    acknowledged = {int(number) for number in text[: text.rindex("\n")].split()}
    wait_for(lambda: acknowledged <= set(counter.numbers), what="everything acknowledged")


def test_every_part_of_a_station_is_killed_25_times_and_the_server_has_everything(
    make_station, config_for, line, counter
):
    running_station_is_killed(make_station, config_for, line, counter, 25, seed=3)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_every_part_of_a_station_is_killed_1000_times_and_the_server_has_everything(
    make_station, config_for, line, counter
):
    running_station_is_killed(make_station, config_for, line, counter, 1000, seed=4)


def test_a_killed_procedure_runs_again_at_once(make_station, config_for, line, counter):
    station = make_station(config_for(line.port), {"counting": "counting:run"}, counting=COUNTING).start()
    pid = wait_for(lambda: station.process("counting")["pid"])
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: station.process("counting")["pid"] not in (pid, None))
    assert station.process("counting")["deaths"] == 1


def test_a_hung_procedure_is_restarted_by_the_watchdog(make_station, config_for):
    hung = "import time\ndef run(config, logger):\n    logger.info('alive')\n    time.sleep(600)\n"
    config = config_for(None, supervision={"hung": {"watchdog_seconds": 1.0}})
    station = make_station(config, {"hung": "hung:run"}, hung=hung).start()
    wait_for(lambda: station.process("hung")["deaths"] >= 1)
    assert "no sign of life" in (next((station.data / "logs").glob("*.log"))).read_text()


def test_a_procedure_that_beats_is_left_alone(make_station, config_for):
    slow = (
        "import time\nfrom fieldstation.station import beat\ndef run(config, logger):\n"
        "    for _ in range(15):\n        beat()\n        time.sleep(0.2)\n"
        "    logger.info('done')\n    time.sleep(600)\n"
    )
    config = config_for(None, supervision={"slow": {"watchdog_seconds": 2.0}})
    station = make_station(config, {"slow": "slow:run"}, slow=slow).start()
    wait_for(lambda: "done" in (next((station.data / "logs").glob("*.log"))).read_text(), 20)
    assert station.process("slow")["deaths"] == 0


def test_a_procedure_that_grows_beyond_its_ceiling_is_restarted(make_station, config_for):
    greedy = "import time\ndef run(config, logger):\n    hoard = bytearray(300_000_000)\n    time.sleep(600)\n"
    config = config_for(None, supervision={"*": {"memory_limit_mb": 150}})
    station = make_station(config, {"greedy": "greedy:run"}, greedy=greedy).start()
    wait_for(lambda: station.process("greedy")["deaths"] >= 1)
    assert "more than 150 MB" in (next((station.data / "logs").glob("*.log"))).read_text()


def test_one_faulty_procedure_does_not_stop_the_others(make_station, config_for, line, counter):
    faulty = "def run(config, logger):\n    raise RuntimeError('always')\n"
    station = make_station(
        config_for(line.port), {"faulty": "faulty:run", "counting": "counting:run"}, faulty=faulty, counting=COUNTING
    ).start()
    wait_for(lambda: station.process("faulty")["deaths"] >= 3)
    pid = station.process("counting")["pid"]
    assert station.process("counting")["deaths"] == 0
    assert pid
    wait_for(lambda: any("RuntimeError: always" in str(m) for m in counter.messages))
