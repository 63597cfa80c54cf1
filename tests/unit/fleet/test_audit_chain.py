"""The audit log's chain: what was done to it is found, and the first bad line is named."""

from datetime import UTC, datetime

import pytest
import sqlalchemy

from fieldstation.fleet.store import chain, ledger, tables
from fieldstation.fleet.store.ledger import Entry

LINES = 7


@pytest.fixture
def connection():
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as opened:
        tables.metadata.create_all(opened)
        opened.execute(sqlalchemy.insert(tables.audit_head).values(first=1, line=0, hash=""))
        for number in range(1, LINES + 1):
            ledger.write_audit(opened, [Entry("reserve", f"S{number}", "ann", "script", "Ω")])
        yield opened


def row(connection, number):
    return connection.execute(sqlalchemy.select(tables.audit).where(tables.audit.c.id == number)).mappings().one()


def verified(connection, expect=None):
    walk = chain.Walk(expect)
    while (verdict := walk.step(connection)) is None:
        pass
    return verdict


@pytest.fixture(autouse=True, params=[2, 2000])
def lines_at_once(request, monkeypatch):
    monkeypatch.setattr(chain, "AT_ONCE", request.param)


def edit(connection, number, **values):
    connection.execute(sqlalchemy.update(tables.audit).where(tables.audit.c.id == number).values(**values))


def remove(connection, *numbers):
    connection.execute(sqlalchemy.delete(tables.audit).where(tables.audit.c.id.in_(numbers)))


def test_a_log_that_nobody_touched_is_good(connection):
    verdict = verified(connection)
    assert (verdict.lines, verdict.earlier, verdict.line, verdict.problem) == (LINES, 0, None, None)
    assert verdict.hash == row(connection, LINES)["hash"]


@pytest.mark.parametrize(
    "values",
    [{"user": "eve"}, {"detail": ""}, {"target": "S9"}, {"action": "end"}, {"client": "x"}, {"hash": "00"},
     {"at": datetime(2020, 1, 1, tzinfo=UTC)}, {"previous": "00"}],
    ids=lambda values: next(iter(values)),
)  # fmt: skip
@pytest.mark.parametrize("number", [1, 4, LINES])
def test_a_changed_line_is_named(connection, number, values):
    edit(connection, number, **values)
    verdict = verified(connection)
    assert verdict.line == number
    assert verdict.lines == number - 1


@pytest.mark.parametrize("gone", [(1,), (4,), (3, 4, 5), (LINES,), (LINES - 1, LINES), tuple(range(1, LINES + 1))])
def test_a_removed_line_is_named(connection, gone):
    remove(connection, *gone)
    assert verified(connection).line == gone[0]


def test_two_lines_that_changed_places_are_found_at_the_first(connection):
    three, five = dict(row(connection, 3)), dict(row(connection, 5))
    edit(connection, 3, **{**five, "id": 3})
    edit(connection, 5, **{**three, "id": 5})
    assert verified(connection).line == 3


def test_a_line_that_was_made_to_fit_itself_does_not_fit_its_neighbour(connection):
    forged = {**row(connection, 4), "user": "eve"}
    edit(connection, 4, user="eve", hash=chain.hash_of(forged["previous"], 4, forged))
    verdict = verified(connection)
    assert verdict.line == 5
    assert "replaced" in verdict.problem


def test_a_whole_new_chain_is_only_found_by_a_hash_that_was_noted(connection):
    noted = verified(connection).hash
    remove(connection, *range(1, LINES + 1))
    connection.execute(sqlalchemy.update(tables.audit_head).values(line=0, hash=""))
    for number in range(LINES):
        ledger.write_audit(connection, [Entry("reserve", f"S{number}", "eve")])
    assert verified(connection).line is None
    assert "no line up to it" in verified(connection, noted).problem


def test_a_noted_hash_is_found_again_when_the_log_has_grown(connection):
    noted = verified(connection).hash
    ledger.write_audit(connection, [Entry("end", "S1", "ann")])
    assert verified(connection, noted).line is None


def test_lines_that_were_deleted_for_their_age_are_no_mistake_but_more_than_those_are(connection):
    remove(connection, 1, 2, 3)
    ledger.write_audit(connection, [Entry(chain.PRUNED, "1-3", detail="older than a year")])
    assert verified(connection).line is None
    remove(connection, 4)
    assert verified(connection).line == 4


def test_lines_from_before_the_chain_are_counted_not_checked(connection):
    connection.execute(sqlalchemy.update(tables.audit_head).values(first=4))
    edit(connection, 2, user="eve")
    verdict = verified(connection)
    assert (verdict.line, verdict.earlier, verdict.lines) == (None, 3, LINES - 3)


def test_lines_are_shown_without_their_hashes(connection):
    assert set(ledger.read_audit(connection, 1)[0]) == {"id", "at", "user", "client", "action", "target", "detail"}
