"""The audit log as a chain: each line carries the hash of the line before, so that no one line can be changed alone.

Who can write to the database can make a whole new chain. A hash that was noted elsewhere shows that, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from fieldstation.core.security import chained
from fieldstation.fleet.store.tables import audit, audit_head

PRUNED = "audit pruned"  # the line that says which lines, by their numbers, were deleted for their age
AT_ONCE = 2000  # lines in one transaction
_FIELDS = ("user", "client", "action", "target", "detail")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk found. `line` is the number of the first bad line and `problem` says what is wrong with it; both
    are None when all is well. `earlier` counts lines from before the chain began."""

    lines: int
    earlier: int
    hash: str
    line: int | None = None
    problem: str | None = None


def append(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write lines (the columns but `id`, `previous` and `hash`) at the end of the chain."""
    head = connection.execute(select(audit_head).with_for_update()).one()
    number, last, linked = head.line, head.hash, []
    for row in rows:
        number += 1
        this = hash_of(last, number, row)
        linked.append({**row, "id": number, "previous": last, "hash": this})
        last = this
    if linked:
        connection.execute(insert(audit), linked)
        connection.execute(update(audit_head).values(line=number, hash=last))


def hash_of(previous: str, number: int, row: Mapping[str, Any]) -> str:
    """Return the hash of a line: of all its columns and of the line before."""
    at: datetime = row["at"]
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    return chained(previous, number, moment, *(row[name] for name in _FIELDS))


class Walk:
    """A walk along the chain to its first bad line, some lines in each transaction: others must be able to write.

    `expect` is a hash noted earlier, which some line must still have.
    """

    def __init__(self, expect: str | None = None) -> None:
        self._expect = expect
        self._found = expect is None
        self._begun = False
        self._number = 0  # of the line looked at last, and its hash
        self._last: str | None = None
        self._lines = 0
        self._earlier = 0

    def step(self, connection: Connection) -> Verdict | None:
        """Look at the next lines; None when there are more."""
        head = connection.execute(select(audit_head)).one()
        if not self._begun:
            self._begun = True
            self._number = _before_first(connection, head.first)
            count = select(func.count()).where(audit.c.id < head.first)
            self._earlier = connection.execute(count).scalar_one()
        after = max(self._number, head.first - 1) if self._last is not None else head.first - 1
        query = select(audit).where(audit.c.id > after).order_by(audit.c.id).limit(AT_ONCE)
        rows = connection.execute(query).mappings().all()
        for row in rows:
            self._number += 1
            problem = _problem(dict(row), self._number, self._last)
            if problem is not None:
                return self._verdict(self._last or "", self._number, problem)
            self._lines, self._last = self._lines + 1, row["hash"]
            self._found = self._found or self._last == self._expect
        if len(rows) == AT_ONCE:
            return None
        if (self._number, self._last or head.hash) != (head.line, head.hash):
            return self._verdict(self._last or "", self._number + 1, "it is missing, and all after it")
        if not self._found:
            return self._verdict(head.hash, head.line, f"no line up to it has the hash {self._expect}")
        return self._verdict(head.hash, None, None)

    def _verdict(self, last: str, line: int | None, problem: str | None) -> Verdict:
        return Verdict(self._lines, self._earlier, last, line, problem)


def _problem(row: Mapping[str, Any], number: int, last: str | None) -> str | None:
    if row["id"] != number:
        return "it is missing"
    if row["hash"] != hash_of(row["previous"], number, row):
        return "it was changed"
    if last is not None and row["previous"] != last:
        return "it does not follow the line before: one of them was replaced or moved"
    return None


def _before_first(connection: Connection, first: int) -> int:
    """Return the number of the last line that is rightly gone."""
    newest = select(audit.c.target).where(audit.c.action == PRUNED).order_by(audit.c.id.desc()).limit(1)
    pruned = connection.execute(newest).scalar()
    end = pruned.rpartition("-")[2] if pruned is not None else ""
    return max(first - 1, int(end)) if end.isdigit() else first - 1
