import pytest

from fieldstation.fleet.errors import BadRequestError, LeaseRefusedError
from fieldstation.fleet.holding import AFTERLIFE_S, Held, Holdings

LEASE = {
    "id": "L",
    "token_hash": "h",
    "client": "me",
    "kind": "pulsecount",
    "args": {},
    "fences": {"A": 3},
    "for_s": 60,
}


@pytest.fixture
def holdings():
    held = Holdings()
    held.add(Held.parse(LEASE, 100.0))
    return held


def code(holdings, presented, serial, now=101.0):
    with pytest.raises(LeaseRefusedError) as refused:
        holdings.check(presented, serial, now)
    return refused.value.fields["code"]


def test_a_holder_may_command_its_device(holdings):
    assert holdings.check(["other", "L"], "A", 101.0).id == "L"


def test_refusals_say_why(holdings):
    assert code(holdings, [], "A") == "no_lease"
    assert code(holdings, ["L"], "B") == "no_lease"
    assert code(holdings, ["L"], "A", now=160.0) == "ended"


def test_a_lease_with_an_older_fencing_number_is_refused(holdings):
    holdings.add(Held.parse({**LEASE, "id": "M", "token_hash": "i", "fences": {"A": 4}}, 100.0))
    assert code(holdings, ["L"], "A") == "stale_fence"
    assert holdings.check(["M"], "A", 101.0).id == "M"


def test_a_released_device_is_refused_with_the_reason(holdings):
    holdings.release(holdings.get("L"), "A", "ended by its holder", 101.0)
    with pytest.raises(LeaseRefusedError, match="ended by its holder"):
        holdings.check(["L"], "A", 102.0)
    assert holdings.active() == []


def test_the_highest_fencing_number_outlives_its_lease(holdings):
    holdings.release(holdings.get("L"), "A", "", 101.0)
    assert holdings.fences == {"A": 3}
    holdings.bury(101.0 + AFTERLIFE_S + 1)
    assert holdings.by_hash("h") is None
    assert holdings.fences == {"A": 3}


def test_a_lease_expires_when_its_time_is_over(holdings):
    assert holdings.expired(159.9) == []
    assert [held.id for held in holdings.expired(160.0)] == ["L"]


@pytest.mark.parametrize("field", ["id", "token_hash", "client", "kind", "fences", "for_s"])
def test_a_missing_field_is_named(field):
    with pytest.raises(BadRequestError) as refused:
        Held.parse({key: value for key, value in LEASE.items() if key != field}, 0.0)
    assert refused.value.fields["field"] == field


def test_a_lease_comes_back_from_its_wire_form():
    held = Held.parse(LEASE, 100.0)
    assert held.body(110.0) == {**LEASE, "user": "", "for_s": 50.0}
