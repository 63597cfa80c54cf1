"""What the store acknowledged is there after kill -9, whole and once."""

import random
import sqlite3
import sys

import pytest

from fieldstation.testing import ServerProcess, wait_for

pytestmark = pytest.mark.timeout(180)

WRITER = """
import sys, threading
from pathlib import Path
from fieldstation.core import store

path = Path(sys.argv[1])
connection = store.connect(path)
store.migrate(connection, [(1, "CREATE TABLE item (thread INT, number INT, UNIQUE (thread, number))")], path)
writer = store.Writer(connection)
first = {n: (m or 0) + 1 for n, m in connection.execute("SELECT thread, max(number) FROM item GROUP BY thread")}

def work(thread):
    number = first.get(thread, 1)
    while True:
        writer.submit(lambda c: c.execute("INSERT INTO item VALUES (?, ?)", (thread, number))).result()
        sys.stdout.write(f"{thread} {number}\\n")
        sys.stdout.flush()
        number += 1

for thread in range(4):
    threading.Thread(target=work, args=[thread]).start()
"""


def test_no_acknowledged_row_is_lost_when_the_writer_is_killed(tmp_path):
    script, path = tmp_path / "writer.py", tmp_path / "a.db"
    script.write_text(WRITER)
    acknowledged = set()
    for _ in range(5):
        process = ServerProcess([sys.executable, script, path])
        enough = random.randint(1, 100)
        wait_for(lambda enough=enough, process=process: process.output.count("\n") >= enough, 60)
        process.kill()
        lines = process.output.split("\n")[:-1]  # what follows the last line end may be half a line
        assert "Traceback" not in process.output
        acknowledged |= {tuple(map(int, line.split())) for line in lines}
    connection = sqlite3.connect(path)
    stored = set(connection.execute("SELECT thread, number FROM item"))
    (check,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    assert check == "ok"
    assert len(acknowledged) >= 5
    assert acknowledged <= stored
    # At most the one row that each thread had in flight is there without having been acknowledged.
    assert len(stored - acknowledged) <= 5 * 4
