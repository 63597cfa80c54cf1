"""Messages and what is owed to uplinks, in one SQLite file. Only the writer process changes it; anybody may read."""

from __future__ import annotations

import datetime
import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fieldstation.core.store import connect, migrate, numbered

DOCUMENTED_UPLINK = "backend"
_EPOCH = datetime.date(1970, 1, 1)
_NO_DAY = 700_000  # about the year 3886, and about the year 53

# The end of the range that new messages fall into: as long as they are of its rank, nothing is written for them.
_OPEN = 1 << 62

_DEPTH = """
SELECT coalesce(sum(min(last, (SELECT max(seq) FROM message)) - first + 1), 0) FROM delivery WHERE uplink = ?
"""

# The oldest messages that were owed to somebody and are no longer.
_DROP = """
DELETE FROM message WHERE seq IN (
    SELECT m.seq FROM message m
    WHERE m.owed = 1 AND m.timestamp < ? AND m.seq < coalesce(?, (SELECT max(seq) FROM message))
    AND NOT EXISTS (SELECT 1 FROM uplink u WHERE m.seq <= (
        SELECT d.last FROM delivery d WHERE d.uplink = u.id AND d.rank = m.rank AND d.first <= m.seq
        ORDER BY d.first DESC LIMIT 1))
    ORDER BY m.seq LIMIT ?)
"""

# The days of all messages, found anew.
DAYS = """
INSERT INTO day (first, day) SELECT seq, day FROM (
    SELECT seq, day, lag(day) OVER (ORDER BY seq) AS before
    FROM (SELECT seq, CAST(timestamp / 86400 AS INTEGER) AS day FROM message)
) WHERE before IS NULL OR before <> day
"""

# The range that `start` lies in, and those that begin up to `end`.
_TOUCHED = """
SELECT first, last FROM delivery
WHERE uplink = :uplink AND rank = :rank AND first <= :end AND last >= :start AND first >= coalesce(
    (SELECT max(first) FROM delivery WHERE uplink = :uplink AND rank = :rank AND first <= :start), :start)
"""

# The range that holds the first wanted number, and those behind it.
NEXT_ROWS = """
SELECT m.seq, m.id, m.timestamp, m.rank, m.body, m.revision
FROM delivery d CROSS JOIN message m ON m.seq BETWEEN max(d.first, :after + 1) AND d.last
WHERE d.uplink = :uplink AND d.rank = :rank AND d.first >= coalesce(
    (SELECT max(first) FROM delivery WHERE uplink = :uplink AND rank = :rank AND first <= :after), 0)
ORDER BY d.first, m.seq LIMIT :count
"""


class NewRow(NamedTuple):
    """A message as its producer made it: a unique id, Unix seconds, 0 for readings or 1 for logs, JSON, and the
    revision of the config under which it was made."""

    id: str
    timestamp: float
    rank: int
    body: str
    revision: int | None = None


class QueueRow(NamedTuple):
    """A stored message that is owed to an uplink."""

    seq: int
    id: str
    timestamp: float
    rank: int
    body: str
    revision: int | None = None


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the store, adopt a queue of today's stations that lies there, and bring the schema up to date."""
    connection = connect(path, timeout_s=30.0)
    # Some builds overwrite what they delete, which costs as much log as writing it did: too much on a full disk.
    connection.execute("PRAGMA secure_delete=OFF")
    old = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'QUEUE' COLLATE NOCASE").fetchone()
    fresh = connection.execute("PRAGMA user_version").fetchone()[0] == 0
    steps = numbered(Path(__file__).parent / "sql")
    if old and fresh:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            _adopt(connection, steps[0][1])
            connection.execute("PRAGMA user_version=1")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    migrate(connection, steps, path)
    return connection


def _adopt(connection: sqlite3.Connection, schema: str) -> None:
    # In one transaction: a station that loses power here has either the whole old queue or the whole new one.
    # Statement by statement, since executescript would commit first.
    statement = ""
    for line in schema.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    connection.execute(
        "INSERT INTO message (seq, id, timestamp, rank, owed, body) "
        "SELECT row_number() OVER (ORDER BY timestamp, internal_id), 'adopted-' || internal_id || '-' || timestamp, "
        'timestamp, message_body LIKE \'{"variant":"log"%\', 1, message_body FROM QUEUE'
    )
    connection.execute("INSERT INTO delivery (uplink, rank, seq) SELECT 1, rank, seq FROM message")
    connection.execute("DROP TABLE QUEUE")


def ranges(keys: Iterable[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Return (rank, first, last) of the runs of successive numbers among the keys (rank, seq)."""
    found: list[tuple[int, int, int]] = []
    for rank, seq in sorted((rank, seq) for rank, seq in keys):
        if found and found[-1][0] == rank and found[-1][2] >= seq - 1:
            found[-1] = (rank, found[-1][1], seq)
        else:
            found.append((rank, seq, seq))
    return found


class Store:
    """The statements. The caller owns the connection and the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute
        self._many = connection.executemany
        self.reload()

    def reload(self) -> None:
        """Read again what is kept in memory: after opening, and after a transaction was rolled back."""
        self._next = self._run("SELECT coalesce(max(seq), 0) + 1 FROM message").fetchone()[0]
        rows = self._run("SELECT id, name, active FROM uplink").fetchall()
        self._uplinks = {name: number for number, name, _ in rows}
        self._active = [number for number, _, active in rows if active]
        found = self._run("SELECT uplink, rank, first FROM delivery WHERE last = ?", (_OPEN,))
        self._open = {uplink: (rank, first) for uplink, rank, first in found}
        newest = self._run("SELECT day FROM day ORDER BY first DESC LIMIT 1").fetchone()
        self._day = newest[0] if newest else None

    def add(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Append `rows`; ids that are stored already are left out. Returns how many are new."""
        marks = ",".join("?" * len(rows))
        known = {found[0] for found in self._run(f"SELECT id FROM message WHERE id IN ({marks})", [r[0] for r in rows])}  # noqa: S608 - only question marks
        new = [row for row in rows if row[0] not in known]
        self.append(new)
        return len(new)

    def append(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Append rows (each as NewRow has it) that are thought to be new; sqlite3.IntegrityError when an id is not."""
        first = self._next
        self._next += len(rows)
        # `seq` is what SQLite gives a new row by itself: one more than the last.
        self._many(
            f"INSERT INTO message (owed, id, timestamp, rank, body, revision) VALUES ({int(bool(self._active))}, "  # noqa: S608 - 0 or 1
            "?, ?, ?, ?, ?)",
            rows,
        )
        for seq, row in enumerate(rows, first):
            if row[1] // 86400 != self._day:
                self._day = int(row[1] // 86400)
                self._run("INSERT INTO day (first, day) VALUES (?, ?)", (seq, self._day))
        if self._active:
            start = first
            for rank, together in itertools.groupby([row[2] for row in rows]):
                for uplink in self._active:
                    if self._open.get(uplink, (None, 0))[0] != rank:
                        self._close(uplink, start - 1)
                        self._put(uplink, [(rank, start, _OPEN)])
                start += sum(1 for _ in together)

    def _close(self, uplink: int, last: int) -> None:
        if uplink in self._open:
            rank, first = self._open[uplink]
            self._take(uplink, rank, [first])
            if first <= last:
                self._put(uplink, [(rank, first, last)])

    def _put(self, uplink: int, owed: list[tuple[int, int, int]]) -> None:
        self._many(
            "INSERT INTO delivery (uplink, rank, first, last) VALUES (?, ?, ?, ?)", [(uplink, *each) for each in owed]
        )
        for rank, first, last in owed:
            if last == _OPEN:
                self._open[uplink] = (rank, first)

    def _take(self, uplink: int, rank: int, firsts: list[int]) -> None:
        self._many(
            "DELETE FROM delivery WHERE uplink = ? AND rank = ? AND first = ?", [(uplink, rank, at) for at in firsts]
        )
        if self._open.get(uplink, (None, None)) in [(rank, at) for at in firsts]:
            del self._open[uplink]

    def done(self, uplink: str, keys: Iterable[Sequence[int]]) -> None:
        """Forget deliveries (rank, seq) that were acknowledged."""
        if (number := self._uplinks.get(uplink)) is not None:
            # A hole ahead of the newest message would swallow one that is still to come.
            for rank, first, last in ranges(key for key in keys if key[1] < self._next):
                self._settle(number, rank, first, last)

    def done_by_seq(self, uplink: str, numbers: Iterable[int]) -> None:
        """Forget deliveries of which only the message's number is known."""
        self.done(uplink, [(rank, seq) for seq in numbers for rank in (0, 1)])

    def _settle(self, uplink: int, rank: int, start: int, end: int) -> None:
        """Cut `start` to `end` out of what is owed."""
        found = self._run(_TOUCHED, {"uplink": uplink, "rank": rank, "start": start, "end": end}).fetchall()
        self._take(uplink, rank, [old for old, _ in found])
        self._put(uplink, [(rank, old, start - 1) for old, _ in found if old < start])
        self._put(uplink, [(rank, end + 1, last) for _, last in found if last > end])

    def park(self, uplink: str, rank: int, seq: int, reason: str) -> None:
        """Set a delivery aside for good; `unpark` takes it up again."""
        self.done(uplink, [(rank, seq)])
        self._run(
            "INSERT OR REPLACE INTO parked (uplink, seq, reason) VALUES (?, ?, ?)", (self._uplinks[uplink], seq, reason)
        )

    def unpark(self, uplink: str) -> int:
        """Owe again what was set aside; returns how many that are."""
        number = self._uplinks[uplink]
        self._run(
            "INSERT OR IGNORE INTO delivery (uplink, rank, first, last) SELECT p.uplink, m.rank, m.seq, m.seq "
            "FROM parked p JOIN message m USING (seq) WHERE p.uplink = ?",
            (number,),
        )
        return self._run("DELETE FROM parked WHERE uplink = ?", (number,)).rowcount

    def set_uplinks(self, names: Iterable[str]) -> None:
        """New messages are owed to exactly these from now on. What others are owed already stays owed."""
        wanted = set(names)
        for name, number in self._uplinks.items():
            if name not in wanted:
                self._close(number, self._next - 1)
        self._run("UPDATE uplink SET active = 0")
        for name in sorted(wanted):
            self._run("INSERT INTO uplink (name, active) VALUES (?, 1) ON CONFLICT DO UPDATE SET active = 1", (name,))
        self.reload()

    def drop_uplink(self, name: str) -> int:
        """Forget what an uplink is owed; the messages stay in the archive. Returns how many that were."""
        number = self._uplinks.get(name)
        self._run("DELETE FROM parked WHERE uplink = ?", (number,))
        (owed,) = self._run(_DEPTH, (number,)).fetchone()
        self._run("DELETE FROM delivery WHERE uplink = ?", (number,))
        self.reload()
        return int(owed)

    def drop_delivered(self, limit: int, *, before: float | None = None) -> int:
        """Drop up to `limit` of the oldest messages that were owed and are no longer; returns how many."""
        # The newest row stays, so that its number is never given a second time. Later days need not be looked at.
        end = (
            None
            if before is None
            else self._run("SELECT min(first) FROM day WHERE day > ?", (before // 86400,)).fetchone()[0]
        )
        gone = self._run(_DROP, (before if before is not None else 1e18, end, limit)).rowcount
        self._run(
            "DELETE FROM day WHERE first < (SELECT max(first) FROM day WHERE first <= (SELECT min(seq) FROM message))"
        )
        return gone


class Reader:
    """Looks at the store; `uplink` is the name whose deliveries are meant."""

    def __init__(self, path: Path, uplink: str = DOCUMENTED_UPLINK) -> None:
        self._connection = connect(path, read_only=True)
        self._uplink = uplink
        self._number: int | None = None

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def next_rows(self, count: int, after: tuple[int, int] = (0, 0)) -> list[QueueRow]:
        """Return up to `count` deliveries in the order of sending; `after` holds the last seq taken of each rank."""
        number = self._uplink_number()
        found: list[QueueRow] = []
        for rank, seq in enumerate(after):
            if len(found) < count and number is not None:
                rows = self._connection.execute(
                    NEXT_ROWS, {"uplink": number, "rank": rank, "after": seq, "count": count - len(found)}
                )
                found += [QueueRow(*row) for row in rows]
        return found

    def depth(self) -> int:
        """Return how many messages the uplink is owed."""
        number = self._uplink_number()
        return int(self._connection.execute(_DEPTH, (number,)).fetchone()[0])

    def oldest(self) -> float | None:
        """Return the time (Unix seconds) of the oldest message owed."""
        rows = [self.next_rows(1, after) for after in ((0, 2**62), (2**62, 0))]
        return min((row[0].timestamp for row in rows if row), default=None)

    def parked(self) -> list[tuple[int, str]]:
        """Return what the uplink could not send: (number, reason)."""
        rows = self._connection.execute(
            "SELECT seq, reason FROM parked WHERE uplink = ? ORDER BY seq", (self._uplink_number(),)
        )
        return [(seq, reason) for seq, reason in rows]

    def on_day(self, day: datetime.date) -> Iterable[tuple[float, str]]:
        """Yield (timestamp, body) of the messages of a UTC day, in the order they were stored."""
        number = (day - _EPOCH).days
        for found, first, last in self._days():
            if found == number:
                rows = self._connection.execute(
                    "SELECT timestamp, body FROM message WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)
                )
                for row in rows:
                    yield row[0], row[1]

    def days(self) -> list[datetime.date]:
        """Return the UTC days of which there are messages."""
        query = "SELECT 1 FROM message WHERE seq BETWEEN ? AND ? LIMIT 1"
        found = {day for day, *span in self._days() if self._connection.execute(query, span).fetchone()}
        return [_EPOCH + datetime.timedelta(days=day) for day in sorted(found) if abs(day) < _NO_DAY]

    def _days(self) -> list[tuple[int, int, int]]:
        """Return (days since 1970, first, last) of the runs of messages of one day."""
        query = "SELECT day, first, lead(first, 1, ?) OVER (ORDER BY first) - 1 FROM day ORDER BY first"
        return [(day, first, last) for day, first, last in self._connection.execute(query, (_OPEN,))]

    def newest(self) -> float | None:
        """Return the time of the message stored last."""
        row = self._connection.execute("SELECT timestamp FROM message ORDER BY seq DESC LIMIT 1").fetchone()
        return row[0] if row else None

    def stored_since(self, moment: float) -> int:
        """Return how many of the newest messages have a time after `moment`."""
        row = self._connection.execute(
            "SELECT count(*) FROM message WHERE seq > coalesce("
            "(SELECT seq FROM message WHERE timestamp <= ? ORDER BY seq DESC LIMIT 1), 0)",
            (moment,),
        ).fetchone()
        return int(row[0])

    def uplinks(self) -> list[str]:
        """Return the names of all uplinks that are or were in use."""
        return [row[0] for row in self._connection.execute("SELECT name FROM uplink ORDER BY id")]

    def _uplink_number(self) -> int | None:
        if self._number is None:
            row = self._connection.execute("SELECT id FROM uplink WHERE name = ?", (self._uplink,)).fetchone()
            self._number = row[0] if row else None
        return self._number
