"""Bad configs, bad clocks, bad command lines: one clear sentence, and nothing changes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time

import pytest

from fieldstation.testing import wait_for

pytestmark = pytest.mark.timeout(180)


def push(counter, config):
    counter.publish("v1/devices/me/attributes", {"configuration": config})


def test_every_bad_config_is_rejected_with_its_reason_and_the_station_goes_on(make_station, config_for, line, counter):
    station = make_station(config_for(line.port)).start()
    wait_for(lambda: station.snapshot()["ok"])
    before = (station.folder / "config" / "config.json").read_text()

    def changed(revision, **general):
        config = config_for(line.port)
        config["general"] |= {"config_revision": revision} | general
        return config

    bad = {
        2: (changed(2) | {"unknwon": 1}, "unknwon"),
        3: (changed(3, system_identifier=""), "system_identifier"),
        4: (changed(4) | {"system_checks": {"seconds_between_checks": 0}}, "seconds_between_checks"),
        5: (changed(5) | {"updater": {"repository": "e/v", "provider": "github", "provider_host": "x.y"}}, "updater"),
        6: (changed(6, software_version="9.9.9"), "never changes its version"),
        1: (changed(1, system_identifier="other"), "not newer"),
        0: (changed(0), "not newer"),
    }
    for revision, (config, word) in bad.items():
        push(counter, config)
        wait_for(lambda r=revision: (r, "rejected") in counter.answers(), what=f"the answer to {revision}")
        assert word in counter.reasons()[-1]
    push(counter, changed(-1))
    wait_for(lambda: (-1, "rejected") in counter.answers())
    push(counter, changed(7, software_version="1.0"))
    wait_for(lambda: "software_version" in counter.reasons()[-1])
    push(counter, changed(8) | {"blob": "x" * 10_000_000})
    wait_for(lambda: "not taken" in counter.reasons()[-1])
    assert (station.folder / "config" / "config.json").read_text() == before
    wait_for(lambda: station.snapshot()["ok"])
    push(counter, changed(9))
    wait_for(lambda: (9, "accepted") in counter.answers())


def test_a_config_whose_procedure_crashes_at_start_is_rolled_back(make_station, config_for, line, counter):
    picky = (
        "import time\ndef run(config, logger):\n    assert config.general.config_revision == 1\n    time.sleep(600)\n"
    )
    station = make_station(config_for(line.port), {"picky": "picky:run"}, picky=picky).start()
    wait_for(lambda: station.snapshot()["ok"])
    new = config_for(line.port)
    new["general"]["config_revision"] = 2
    push(counter, new)
    wait_for(lambda: (2, "rejected") in counter.answers())
    assert "died" in counter.reasons()[-1]
    wait_for(lambda: station.snapshot()["ok"] and station.snapshot()["revision"] == 1)
    assert json.loads((station.folder / "config" / "config.json").read_text())["general"]["config_revision"] == 1


def test_a_masked_password_that_comes_back_keeps_the_stored_one(make_station, config_for, line, counter):
    station = make_station(config_for(line.port)).start()
    wait_for(lambda: station.snapshot()["ok"])
    new = config_for(line.port)
    new["general"]["config_revision"] = 2
    new["backend"]["mqtt_connection"]["password"] = "***"
    push(counter, new)
    wait_for(lambda: (2, "accepted") in counter.answers())
    assert "s3cret-pw" in (station.folder / "config" / "config.json").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"general": {}}', "\ufeffnonsense"])
def test_a_config_file_that_is_no_config_ends_the_start_with_one_sentence(make_station, config_for, text):
    station = make_station(config_for(None))
    (station.folder / "config" / "config.json").write_text(text)
    result = station.command("run")
    assert result.returncode == 1
    assert result.stderr.startswith("fieldstation: ")
    assert "Traceback" not in result.stderr
    assert "config" in result.stderr


def test_a_folder_without_a_station_says_how_to_make_one(tmp_path, make_station, config_for):
    station = make_station(config_for(None))
    (station.folder / "config" / "config.json").unlink()
    result = station.command("status")
    assert result.returncode == 1
    assert "fieldstation station new" in result.stderr


def test_a_health_port_that_is_taken_is_said(make_station, config_for, line):
    station = make_station(config_for(None, health={"port": line.port}))
    result = station.command("run")
    assert result.returncode == 1
    assert f"port {line.port}" in result.stderr


def test_the_clock_set_back_and_forward_by_a_day_loses_and_blocks_nothing(make_station, config_for, line, counter):
    # The clock of one procedure jumps; the machine's own cannot be set in a test.
    jumping = """
import time
from fieldstation.station import DataMessageBody, MessagingAgent, get_time_to_next_datapoint
real = time.time
def run(config, logger):
    agent = MessagingAgent()
    for n, offset in enumerate([0, 86400, -86400, 0]):
        time.time = lambda offset=offset: real() + offset
        agent.add_message(DataMessageBody(data={"n": n}))
        time.sleep(get_time_to_next_datapoint(1))
    while True:
        time.sleep(1)
"""
    make_station(config_for(line.port), {"jumping": "jumping:run"}, jumping=jumping).start()
    wait_for(lambda: len(counter.numbers) == 4)
    assert counter.numbers == list(range(4)), "delivered in the order they were stored, whatever the clock said"


def test_health_and_metrics_tell_what_is_wrong(make_station, config_for, line, counter):
    import urllib.request

    station = make_station(config_for(line.port))
    with systemd(station) as told:
        station.start()
        wait_for(lambda: "READY=1" in told and told.count("WATCHDOG=1") >= 3)
    wait_for(lambda: station.snapshot()["ok"])
    with urllib.request.urlopen(station.server.url + "/metrics") as answer:
        text = answer.read().decode()
    assert "fieldstation_station_up 1" in text
    line.refuse()
    wait_for(lambda: not station.snapshot()["ok"])
    assert station.command("health").returncode == 1
    assert "does not reach its server" in station.command("health").stdout
    assert station.command("status").returncode == 0


@contextlib.contextmanager
def systemd(station):
    """The socket to which a station says that it is ready and alive; yields what it said."""
    told = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        name = f"fieldstation-test-{os.getpid()}"  # in the abstract space: no path that could be too long
        line.bind(f"\0{name}")
        station.environment |= {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "200000"}
        line.settimeout(0.2)

        def hear():
            with contextlib.suppress(OSError):
                while line.fileno() >= 0:
                    with contextlib.suppress(TimeoutError):
                        told.append(line.recv(100).decode())

        hearing = threading.Thread(target=hear)
        hearing.start()
        yield told
    hearing.join()


def test_the_commands_of_a_life(make_station, config_for, line, counter):
    station = make_station(config_for(line.port), {"system_checks": "system_checks"}, x="")
    station.write_config(config_for(line.port) | {"system_checks": {"seconds_between_checks": 1}})
    assert "started the station" in station.command("start").stdout
    try:
        wait_for(lambda: json.loads(station.command("status", "--json").stdout)["ok"])
        assert "already running" in station.command("start").stdout
        queue = json.loads(station.command("queue", "--json").stdout)
        assert set(queue["backend"]) >= {
            "depth", "oldest_age_s", "stored_per_minute", "delivered_per_minute", "delivered",
        }  # fmt: skip
        assert '"password": "***"' in station.command("config", "show").stdout
        new = config_for(line.port) | {"system_checks": {"seconds_between_checks": 2}}
        new["general"]["config_revision"] = 2
        (station.folder / "new.json").write_text(json.dumps(new))
        pushed = station.command("config", "push", "new.json", "--wait", "30")
        assert pushed.returncode == 0, pushed.stdout
        assert "accepted" in pushed.stdout
        assert "revision 1" in station.command("rollback", "--config").stdout
        wait_for(lambda: json.loads(station.command("status", "--json").stdout)["revision"] == 1)
        assert "INFO" in station.command("logs", "-n", "50").stdout
    finally:
        stopped = station.command("stop")
    assert "has stopped" in stopped.stdout
    exported = station.command("archive", "export", "--to", str(station.folder / "out"), "--format", "parquet")
    assert "messages" in exported.stdout, exported.stderr
    assert time.strftime("%Y", time.gmtime()) in exported.stdout
