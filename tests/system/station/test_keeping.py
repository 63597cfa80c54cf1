"""Retention: what may go goes, the oldest first, and nothing that is owed."""

from __future__ import annotations

import json
import time

import pytest

from fieldstation.station.agent import MessagingAgent
from fieldstation.station.archive import day_of, read_day_file, write_day
from fieldstation.station.config import RetentionConfig
from fieldstation.station.keeping import archive_mb, keep_house
from fieldstation.station.messages import DataMessageBody
from fieldstation.station.store import Reader
from fieldstation.testing import wait_for

pytestmark = pytest.mark.timeout(120)

TEXT = "x" * 2000


def old_days(folder, ages):
    """Files of days that are no longer in the store."""
    for age in ages:
        moment = time.time() - age * 86400
        write_day(folder / "messages" / f"{day_of(moment)}.csv", [(moment, f'{{"text":"{TEXT}"}}')] * 200)


def names(folder):
    return sorted(path.stem for path in (folder / "messages").glob("*.csv"))


def test_above_its_size_the_archive_loses_its_oldest_days_then_delivered_messages_and_nothing_owed(store):
    agent = MessagingAgent(store.folder)
    agent.add_messages(DataMessageBody(data={"n": n, "text": TEXT}) for n in range(2000))
    agent.remove_messages(list(range(1, 1001)))
    old_days(store.folder, [400, 3])
    today = str(day_of(time.time()))
    file = store.folder / "messages" / f"{today}.csv"
    wait_for(lambda: file.exists() and len(list(read_day_file(file))) == 2000, 60)
    whole = archive_mb(store.folder)
    keep_house(store.folder, RetentionConfig(max_size_mb=whole - 0.3))
    assert len(names(store.folder)) == 2, "the oldest file is enough"
    keep_house(store.folder, RetentionConfig(max_size_mb=whole - 1.7))
    assert names(store.folder) == [today]
    left = Reader(store.folder / "active-message-queue.sqlite3")
    kept = [json.loads(body)["data"]["n"] for _, body in left.on_day(day_of(time.time()))]
    assert 1000 < len(kept) < 2000
    assert kept == list(range(2000 - len(kept), 2000)), "the oldest went"
    assert archive_mb(store.folder) <= whole - 1.7
    keep_house(store.folder, RetentionConfig(max_size_mb=0.1))
    assert left.depth() == 1000
    left.close()
    agent.add_message(DataMessageBody(data={"n": 2000}))
    assert store.queued() == list(range(1000, 2001))
    agent.teardown()


def test_beyond_their_age_days_go_from_the_files_too(store):
    agent = MessagingAgent(store.folder)
    agent.add_message(DataMessageBody(data={"n": 1}))
    agent.teardown()
    old_days(store.folder, [400, 31, 3])
    keep_house(store.folder, RetentionConfig(max_age_days=30))
    assert str(day_of(time.time() - 3 * 86400)) in names(store.folder)
    assert str(day_of(time.time() - 31 * 86400)) not in names(store.folder)
    assert store.queued() == [1]


@pytest.mark.soak  # a station first keeps house a minute after its start
def test_a_running_station_keeps_its_size(make_station, config_for, line, counter):
    filling = (
        "import time\nfrom fieldstation.station import DataMessageBody, MessagingAgent\n"
        "def run(config, logger):\n    agent = MessagingAgent()\n    for n in range(1000):\n"
        "        agent.add_message(DataMessageBody(data={'n': n, 'text': 'x' * 5000}))\n    time.sleep(600)\n"
    )
    config = config_for(line.port, retention={"max_size_mb": 7})
    station = make_station(config, {"filling": "filling:run"}, filling=filling).start()
    wait_for(lambda: len(set(counter.numbers)) == 1000, 50)
    wait_for(lambda: station.snapshot()["queues"]["backend"]["depth"] == 0)
    assert archive_mb(station.data) > 9
    wait_for(lambda: archive_mb(station.data) <= 7, 90, every_s=0.5)
