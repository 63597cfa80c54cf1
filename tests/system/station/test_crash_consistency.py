"""The store opens after a crash at every point: cut files, a full disk, failing syncs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fieldstation.station import frames, rescue
from fieldstation.station.agent import MessagingAgent
from fieldstation.station.errors import DiskFullError, OutboxUnavailableError
from fieldstation.station.messages import DataMessageBody
from fieldstation.station.store import NewRow, Reader, Store, open_for_writing
from fieldstation.testing import program, wait_for

pytestmark = pytest.mark.timeout(180)


def test_fault_power_loss_a_log_cut_at_every_write_boundary_opens_with_whole_commits(tmp_path):
    path = tmp_path / "a" / "q.sqlite3"
    connection = open_for_writing(path)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    wal = path.with_name("q.sqlite3-wal")
    store = Store(connection)
    durable = [(0, 0)]  # (size of the log, rows that were acknowledged by then)
    for n in range(12):
        connection.execute("BEGIN IMMEDIATE")
        store.add([NewRow(f"{n}-{i}", 1.0, i % 2, "x" * 500) for i in range(3)])
        connection.execute("COMMIT")
        durable.append((wal.stat().st_size, 3 * (n + 1)))
    whole = wal.read_bytes()
    # Frames of the log are 24 + 4096 bytes behind a head of 32; cut at each, and in the middle of each.
    cuts = [32 + n * 4120 + extra for n in range((len(whole) - 32) // 4120 + 1) for extra in (0, 2000)]
    for number, cut in enumerate([0, 10, *cuts]):
        copy = tmp_path / f"cut{number}" / "q.sqlite3"
        copy.parent.mkdir()
        shutil.copy(path, copy)
        copy.with_name("q.sqlite3-wal").write_bytes(whole[:cut])
        notes = []
        opened = rescue.open_or_rescue(copy, notes)
        assert notes == []
        (rows,) = opened.execute("SELECT count(*) FROM message").fetchone()
        (owed,) = opened.execute(
            "SELECT count(*) FROM message m JOIN delivery d ON m.rank = d.rank AND m.seq BETWEEN d.first AND d.last"
        ).fetchone()
        acknowledged = max(rows for size, rows in durable if size <= cut)
        assert rows == owed
        assert rows >= acknowledged
        assert rows % 3 == 0
        opened.close()
        shutil.rmtree(copy.parent)
    connection.close()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.fail(f"a small disk could not be mounted; run the tests as root: {mount.stderr}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)  # lazily: a writer that has just ended lets go


def test_fault_disk_full_refuses_loudly_and_nothing_acknowledged_is_lost(small_disk):
    agent = MessagingAgent(small_disk / "data")
    body = DataMessageBody(data={"text": "x" * 20_000})
    stored = 0
    refused = ""
    while not refused:
        try:
            agent.add_message(body)
            stored += 1
        except DiskFullError as error:
            refused = str(error)
    assert "not stored" in refused
    assert stored > 200
    reader = Reader(small_disk / "data" / "active-message-queue.sqlite3")
    assert reader.depth() == stored
    # What is delivered makes room again, and the archive shrinks before anything is refused.
    numbers = [row.seq for row in reader.next_rows(stored)]
    reader.close()
    agent.remove_messages(numbers[: stored // 2])
    for _ in range(50):
        agent.add_message(body)
    left = Reader(small_disk / "data" / "active-message-queue.sqlite3")
    assert left.depth() == stored - stored // 2 + 50
    left.close()
    agent.teardown()


def test_a_disk_that_cannot_be_written_is_refused_in_one_sentence(small_disk):
    agent = MessagingAgent(small_disk / "data", deadline_s=3)
    agent.add_message(DataMessageBody(data={"n": 1}))
    pid = agent._line.ask(("ping",))
    agent.teardown()
    os.kill(pid, 9)
    wait_for(lambda: not Path(f"/proc/{pid}/maps").exists() or not Path(f"/proc/{pid}/maps").read_text())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    again = MessagingAgent(small_disk / "data", deadline_s=2)
    with pytest.raises(OutboxUnavailableError, match="not stored"):
        again.add_message(DataMessageBody(data={"n": 2}))
    again.teardown()


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
@pytest.mark.parametrize("when", [1, 2, 5, 9])
def test_a_sync_that_fails_is_never_acknowledged(tmp_path, call, when):
    script = tmp_path / "add.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom fieldstation.station.store import *\n"
        "path = Path(sys.argv[1])\nconnection = open_for_writing(path)\nstore = Store(connection)\n"
        "for n in range(10):\n"
        "    connection.execute('BEGIN IMMEDIATE')\n"
        "    store.add([NewRow(str(n), 1.0, 0, 'x' * 3000)])\n"
        "    connection.execute('COMMIT')\n"
        "    print(n, flush=True)\n"
    )
    path = tmp_path / "q.sqlite3"
    result = subprocess.run(
        [program("strace"), "-f", "-qq", "-o", tmp_path / "trace", "-e", f"inject={call}:error=EIO:when={when}+",
         sys.executable, script, path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    acknowledged = [int(line) for line in result.stdout.split()]
    notes = []
    opened = rescue.open_or_rescue(path, notes)
    found = {row[0] for row in opened.execute("SELECT id FROM message")}
    opened.close()
    assert {str(n) for n in acknowledged} <= found
    if call == "fdatasync":  # what SQLite uses here; the other shows that nothing depends on it
        assert len(acknowledged) < 10
        assert result.returncode != 0


def test_nonsense_at_its_socket_ends_that_line_and_not_the_writer(store):
    pid = store.writer_pid()
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x015", b"\0\0\0\x02[]", b"\0\0\0\x035\nx", b"\0\0\0\x02{}"):
        with contextlib.closing(frames.connect(store.folder, 60)) as line:
            line.sendall(nonsense)
            assert line.recv(100) == b""
    adds = [
        "1,2,3,4]",
        '["x"],0,[0],1]\n1\n2',
        '"x",null,0,1]\n1',
        '"x",1e999,0,1]\n1',
        '"x",1e99,0,1]\n1',
        '"x-y",0,0,1]\n1\n2',
    ]
    for request in ('["add"]', '["nothing"]', "[[]]", *('["add",' + rest for rest in adds)):
        with contextlib.closing(frames.connect(store.folder, 60)) as line:
            line.sendall(frames.LENGTH.pack(len(request)) + request.encode())
            assert b"error" in line.recv(1000)
    agent = MessagingAgent(store.folder)
    agent.add_message(DataMessageBody(data={"n": 1}))
    agent.teardown()
    assert store.queued() == [1]
    assert store.writer_pid() == pid


def test_a_broken_queue_file_is_set_aside_told_to_the_server_and_the_archive_stays(store):
    agent = MessagingAgent(store.folder)
    for n in range(50):
        agent.add_message(DataMessageBody(data={"n": n}))
    agent.teardown()
    pid = store.writer_pid()
    os.kill(pid, 9)
    wait_for(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())
    file = store.folder / "active-message-queue.sqlite3"
    for ending in ("", "-wal", "-shm"):
        file.with_name(file.name + ending).write_bytes(b"garbage" * 10_000)
    agent.add_message(DataMessageBody(data={"n": 50}))
    assert len(list(store.folder.glob("*.broken-*"))) >= 1
    bodies = [item.message_body for item in agent.get_n_latest_messages(10, [])]
    assert any(body.variant == "log" and "set aside" in body.subject for body in bodies)
    (day,) = (store.folder / "messages").glob("*.csv")
    wait_for(lambda: day.read_text().count('""n"":') == 51)
    agent.teardown()
