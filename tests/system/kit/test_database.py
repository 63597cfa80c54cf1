"""The store with several processes, and with one that is killed."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fieldstation.kit.database import Database

pytestmark = pytest.mark.timeout(30)

APPEND = """
import sys
from fieldstation.kit.database import Database
db = Database(sys.argv[1], timeout_s=20)
table = db.table("t")
n = 0
while n < int(sys.argv[3]):
    table.append(who=sys.argv[2], n=n)
    n += 1
    print(n, flush=True)
db.close()
"""


def start(path: Path, who: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", APPEND, str(path), who, str(count)], stdout=subprocess.PIPE, text=True
    )


def test_four_processes_append_to_one_file_and_no_row_is_missing(tmp_path: Path) -> None:
    with Database(tmp_path / "d") as db:
        db.append("t", {"who": "first", "n": 0})
        processes = [start(tmp_path / "d", str(who), 100) for who in range(4)]
        for process in processes:
            process.communicate(timeout=25)
            assert process.returncode == 0
        counts = {row["who"]: row["n"] for row in db.query("SELECT who, count(*) AS n FROM t GROUP BY who")}
    assert counts == {"first": 1, "0": 100, "1": 100, "2": 100, "3": 100}


def test_every_row_acknowledged_before_a_kill_is_there_afterwards(tmp_path: Path) -> None:
    acknowledged = 0
    for round_number in range(5):
        process = start(tmp_path / "d", str(round_number), 1_000_000)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 40:
                break
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        acknowledged = int(rest[-1]) if rest else 40
        with Database(tmp_path / "d") as db:
            numbers = [r["n"] for r in db.query("SELECT n FROM t WHERE who = ? ORDER BY n", [str(round_number)])]
            assert db.check() == []
        assert numbers[:acknowledged] == list(range(acknowledged))
        assert len(numbers) - acknowledged <= 1, "at most the row that was being acknowledged"


def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    with Database(tmp_path / "d") as db:
        db.append("t", {"n": 1})
        writer = sqlite3.connect(tmp_path / "d", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        assert db.query("SELECT n FROM t") == [{"n": 1}]
        writer.execute("COMMIT")
        writer.close()
        assert len(db.query("SELECT n FROM t")) == 2
