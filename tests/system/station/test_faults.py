"""The faults of today's system, each reproduced against ours on a real broker. Numbers are those of the list."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fieldstation.core.files import write_file
from fieldstation.station.supervisor import birth_of
from fieldstation.testing import wait_for

pytestmark = pytest.mark.timeout(180)

# Stores numbered readings as fast as asked; `n` in the data is what the server counts.
NUMBERS = """
import time
from fieldstation.station import DataMessageBody, MessagingAgent
def run(config, logger):
    agent = MessagingAgent()
    for n in range({count}):
        agent.add_message(DataMessageBody(data={{"n": n}}))
        time.sleep({pause})
    while True:
        time.sleep(1)
"""


def numbers(count, pause=0.0):
    return {"procedures": {"counting": "counting:run"}, "counting": NUMBERS.format(count=count, pause=pause)}


def everything(counter, count):
    wait_for(lambda: len(set(counter.numbers)) == count, what=f"{count} messages")
    assert sorted(set(counter.numbers)) == list(range(count))


def test_fault_03_a_half_open_line_loses_nothing(make_station, line, counter, config_for):
    station = make_station(config_for(line.port), **numbers(300, 0.005)).start()
    wait_for(lambda: len(counter.numbers) > 20)
    line.hold()
    time.sleep(1.0)  # the fault itself: for so long everything that is sent vanishes, and nobody is told
    line.hold(False)
    everything(counter, 300)
    wait_for(lambda: station.snapshot()["ok"], 40, what="a station that is well again")


def test_fault_04_a_line_of_150_ms_each_way_connects_and_delivers(make_station, line, counter, config_for):
    line.delay_s = 0.15
    station = make_station(config_for(line.port), **numbers(50)).start()
    everything(counter, 50)
    wait_for(lambda: station.process("backend")["details"].get("connects") == 1)


def test_fault_05_no_state_update_is_lost(tmp_path):
    script = (
        "from fieldstation.station import StateInterface\n"
        "for n in range(50):\n"
        "    with StateInterface.update() as state:\n"
        "        state.system.last_5_min_load = (state.system.last_5_min_load or 0) + 1\n"
    )
    environment = {**os.environ, "IVY_DATA_DIR": str(tmp_path)}
    workers = [subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    look = subprocess.run(
        [sys.executable, "-c", "from fieldstation.station import StateInterface as s; print(s.load().system)"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "last_5_min_load=200.0" in look.stdout


def test_fault_06_a_killed_supervisor_leaves_no_orphans(make_station, line, counter, config_for):
    station = make_station(config_for(line.port), **numbers(10)).start()
    pids = [p["pid"] for p in station.snapshot()["processes"]] + [station.snapshot()["writer_pid"]]
    os.kill(station.server.pid, signal.SIGKILL)
    station.server.process.wait()
    wait_for(lambda: not any(birth_of(pid) for pid in pids))
    station.start()
    assert wait_for(lambda: station.snapshot()["ok"])


def test_fault_06_a_child_that_ignores_the_signal_is_reaped_by_the_next_start(make_station, config_for):
    stubborn = (
        "import signal, time\nfrom pathlib import Path\ndef run(config, logger):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    Path('deaf').touch()\n    time.sleep(600)\n"
    )
    station = make_station(config_for(None), {"stubborn": "stubborn:run"}, stubborn=stubborn).start()
    wait_for((station.folder / "deaf").exists)
    pid = station.process("stubborn")["pid"]
    os.kill(station.server.pid, signal.SIGKILL)
    station.server.process.wait()
    assert birth_of(pid)
    station.start()
    assert not birth_of(pid)


def test_fault_07_a_config_set_while_the_station_was_off_is_taken_at_connect(make_station, line, counter, config_for):
    new = config_for(line.port)
    new["general"]["config_revision"] = 2

    def answer(_client, _data, message):
        number = message.topic.rpartition("/")[2]
        counter.publish(f"v1/devices/me/attributes/response/{number}", {"shared": {"configuration": new}})

    counter._client.message_callback_add("v1/devices/me/attributes/request/+", lambda *a: thread(answer, *a))
    counter._client.subscribe("v1/devices/me/attributes/request/+", 1)
    make_station(config_for(line.port)).start()
    wait_for(lambda: (2, "accepted") in counter.answers())


def thread(function, *arguments):
    import threading

    threading.Thread(target=function, args=arguments, daemon=True).start()


def test_fault_08_after_a_cut_configs_are_still_heard(make_station, line, counter, config_for):
    station = make_station(config_for(line.port)).start()
    wait_for(lambda: station.snapshot()["ok"])
    line.cut()
    wait_for(lambda: station.process("backend")["details"]["connects"] >= 2)
    new = config_for(line.port)
    new["general"]["config_revision"] = 2
    counter.publish("v1/devices/me/attributes", {"configuration": new})
    wait_for(lambda: (2, "accepted") in counter.answers())


@pytest.mark.parametrize("payload", [b"\xff\xfe not utf-8", b'{"configuration": {"general": 5}}'])
def test_fault_10_a_broken_config_does_not_make_it_deaf(make_station, line, counter, payload, config_for):
    station = make_station(config_for(line.port)).start()
    wait_for(lambda: station.snapshot()["ok"])
    pid = station.process("backend")["pid"]
    counter.publish("v1/devices/me/attributes", payload)
    wait_for(lambda: (-1, "rejected") in counter.answers())
    new = config_for(line.port)
    new["general"]["config_revision"] = 2
    assert station.process("backend")["pid"] == pid
    counter.publish("v1/devices/me/attributes", {"configuration": new})
    wait_for(lambda: (2, "accepted") in counter.answers())


def test_fault_11_an_outage_starts_no_process_and_tells_little(make_station, line, counter, config_for):
    station = make_station(config_for(line.port), **numbers(20)).start()
    everything(counter, 20)
    pid = station.process("backend")["pid"]
    line.refuse()
    wait_for(lambda: not station.process("backend")["details"]["connected"])
    time.sleep(2)  # the outage itself
    assert station.process("backend")["pid"] == pid
    assert station.snapshot()["queues"]["backend"]["depth"] < 15
    line.refuse(False)
    wait_for(lambda: station.snapshot()["ok"])
    assert station.process("backend")["deaths"] == 0


def test_fault_12_a_stop_drains_what_is_queued(make_station, line, counter, config_for):
    station = make_station(config_for(line.port, backend=None), **numbers(300)).start()
    wait_for(lambda: station.snapshot()["queues"]["backend"]["depth"] >= 300)
    station.stop()
    assert counter.numbers == []
    (station.folder / "counting.py").write_text("import time\ndef run(config, logger):\n    time.sleep(600)\n")
    station.write_config(config_for(line.port))
    line.delay_s = 0.05
    station.start()
    assert station.stop(60) == 0
    everything(counter, 300)  # the broker has it all, and is about to pass it on


def test_fault_13_a_signal_to_the_whole_group_does_not_end_the_sender(make_station, line, counter, config_for):
    line.delay_s = 0.05
    station = make_station(config_for(line.port), **numbers(200)).start()
    wait_for(lambda: station.snapshot()["queues"]["backend"]["stored_per_minute"] >= 200)
    station.server.send(signal.SIGTERM)
    assert station.server.wait(60) == 0
    everything(counter, 200)


def test_fault_14_and_rate_a_thousand_messages_are_delivered_and_none_is_left(make_station, line, counter, config_for):
    station = make_station(config_for(line.port), **numbers(1000)).start()
    everything(counter, 1000)
    wait_for(lambda: station.snapshot()["queues"]["backend"]["depth"] == 0)


def test_fault_secrets_are_in_no_log_no_archive_and_no_message(make_station, line, counter, config_for):
    leaky = "def run(config, logger):\n    raise ValueError('password is ' + config.backend.mqtt_connection.password)\n"
    station = make_station(config_for(line.port), {"leaky": "leaky:run"}, leaky=leaky).start()
    wait_for(lambda: any("EXCEPTION" in str(m) for m in counter.messages))
    station.command("config", "show")
    station.stop()
    told = str(counter.messages) + station.server.output + station.command("config", "show").stdout
    told += "".join(p.read_text() for p in station.data.rglob("*") if p.suffix in (".log", ".csv", ".json"))
    assert "startup" in told
    assert "s3cret-pw" not in told


def test_fault_locks_who_logs_never_waits_long_and_never_fails(tmp_path, config_for):
    # The folder of the log cannot be written, and there is no writer for messages.
    write_file(tmp_path / "logs", "a file where the folder should be")
    script = """
import json, sys
from fieldstation.station import Config, Logger
data = json.loads(sys.argv[1])
logger = Logger(Config.model_validate(data), "test")
logger.error("still here")
logger.exception(ValueError("x"))
"""
    import json

    config = json.dumps(config_for(1))
    environment = {**os.environ, "IVY_DATA_DIR": str(tmp_path), "FIELDSTATION_STATION_SUPERVISED": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script, config], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "still here" in result.stdout


def test_fault_foreign_pids_only_the_holder_of_the_lock_is_running(make_station, line, config_for):
    station = make_station(config_for(line.port), **numbers(1)).start()
    assert station.command("is-running").returncode == 0
    second = station.command("run")
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert station.command("start").returncode == 0
    station.stop()
    assert station.command("is-running").returncode == 1


def test_fault_no_rollback_a_config_that_cuts_the_station_off_is_rolled_back(make_station, line, counter, config_for):
    window = {"settle_seconds": 0.5, "config_window_seconds": 3}
    station = make_station(config_for(line.port, health=window)).start()
    wait_for(lambda: station.snapshot()["ok"])
    bad = config_for(1, health=window)
    bad["general"]["config_revision"] = 2
    counter.publish("v1/devices/me/attributes", {"configuration": bad})
    wait_for(lambda: (2, "rejected") in counter.answers())
    assert "not reached" in counter.reasons()[-1]
    wait_for(lambda: station.snapshot()["ok"] and station.snapshot()["revision"] == 1)
    assert counter.answers() == [(1, "startup"), (2, "received"), (2, "rejected")]
