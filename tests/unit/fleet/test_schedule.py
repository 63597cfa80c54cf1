from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fieldstation.fleet.model import Device, DeviceState, Holder
from fieldstation.fleet.schedule import (
    AGE_PER_PRIORITY_S,
    Due,
    Lack,
    Terms,
    Waiting,
    Want,
    choose,
    due,
    estimate,
    left_after_restart,
    plan,
    why_waiting,
)

TERMS = Terms(lease_s=3600, ending_soon_s=1200, ending_soon_every_s=300, grace_s=60)


def device(serial: str, worker: str = "w", kinds: tuple[str, ...] = ("pulsecount",), **more) -> Device:
    return Device(serial, worker, "fake", DeviceState.AVAILABLE, kinds, **more)


def want(amount: int = 1, kind: str = "pulsecount", name: str = "bob", **more) -> Want:
    return Want(Holder("u", name), kind, amount, **more)


def waiting(order: int, wanted: Want, since: float = 0.0) -> Waiting:
    return Waiting(f"t{order}", wanted, since, order)


def test_devices_come_from_the_least_busy_worker_and_least_used_first():
    free = [device("A1", "a", fence=9), device("A2", "a"), device("B1", "b"), device("B2", "b", fence=4)]
    assert choose(want(2), free, {}) == ("A2", "B1")
    assert choose(want(2), free, {"a": 2}) == ("B1", "B2")
    assert choose(want(4), free, {}) == ("A2", "B1", "A1", "B2")


def test_all_or_none():
    free = [device("A1"), device("A2", kinds=("variance",))]
    assert choose(want(2), free, {}) is None
    assert choose(want(1, "variance"), free, {}) == ("A2",)
    assert choose(want(serials=("A2", "A1"), amount=0), free, {}) is None
    both = [device("A1"), device("A2")]
    assert choose(want(serials=("A2", "A1"), amount=0), both, {}) == ("A2", "A1")


def test_labels_must_all_fit():
    free = [device("A1", labels={"rev": "1", "room": "x"}), device("A2", labels={"rev": "2", "room": "x"})]
    assert choose(want(labels={"rev": "2", "room": "x"}), free, {}) == ("A2",)
    assert choose(want(labels={"rev": "3"}), free, {}) is None


def test_a_big_request_is_not_starved_by_small_ones():
    free = [device("A1"), device("A2")]
    made = plan([waiting(0, want(3)), waiting(1, want(1))], free, {}, now=0)
    assert made.grants == {}
    assert made.kept == {"A1", "A2"}


def test_who_wants_other_devices_passes():
    free = [device("A1"), device("V1", kinds=("variance",))]
    made = plan([waiting(0, want(3)), waiting(1, want(1, "variance"))], free, {}, now=0)
    assert made.grants == {1: ("V1",)}


def test_two_holders_may_use_the_same_ticket():
    places = [Waiting("mine", want(1, name=name), 0.0, order) for order, name in enumerate(("bob", "eve"))]
    made = plan(places, [device("A1"), device("A2")], {}, now=0)
    assert made.grants == {0: ("A1",), 1: ("A2",)}


def test_age_catches_up_with_priority():
    old, urgent = waiting(0, want(1)), waiting(1, want(1, priority=2), since=100.0)
    assert plan([old, urgent], [], {}, now=100.0).order == (0, 1)
    fresh = waiting(0, want(1), since=100.0 - AGE_PER_PRIORITY_S)
    assert plan([fresh, urgent], [], {}, now=100.0).order == (1, 0)


KINDS = st.sampled_from(["pulsecount", "variance"])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sets(KINDS, min_size=1)), max_size=12),
    st.lists(st.tuples(st.integers(1, 5), KINDS, st.integers(-3, 3), st.floats(0, 1000)), max_size=8),
)
def test_no_device_is_given_twice_and_grants_are_complete(devices, wants):
    free = [device(f"D{n}", worker, tuple(sorted(kinds))) for n, (worker, kinds) in enumerate(devices)]
    kinds_of = {known.serial: known.kinds for known in free}
    queue = [
        waiting(order, want(amount, kind, priority=priority), since)
        for order, (amount, kind, priority, since) in enumerate(wants)
    ]
    made = plan(queue, free, {}, now=1000.0)
    given_out = Counter(serial for serials in made.grants.values() for serial in serials)
    assert all(count == 1 for count in given_out.values())
    assert set(given_out) <= made.kept
    for place in queue:
        for serial in made.grants.get(place.order, ()):
            assert place.want.kind in kinds_of[serial]
        if place.order in made.grants:
            assert len(made.grants[place.order]) == place.want.amount
    # Who stands first and could be served is served.
    if made.order:
        first = next(place for place in queue if place.order == made.order[0])
        enough = sum(first.want.kind in kinds for kinds in kinds_of.values()) >= first.want.amount
        assert (first.order in made.grants) == enough


def test_the_reason_names_what_is_missing_for_people_and_for_programs():
    free, everything = [device("A1")], [device("A1"), device("A2")]
    why = why_waiting(want(3), 0, free, everything)
    assert why.text == "The fleet has 2 of 3 devices of kind pulsecount; more must be plugged in."
    assert (why.code, why.wanted, why.free, why.exist) == (Lack.TOO_FEW_EXIST, 3, 1, 2)
    why = why_waiting(want(2), 2, free, everything)
    assert why.text == "1 of 2 devices of kind pulsecount is free; 2 requests are ahead of yours."
    assert (why.code, why.ahead) == (Lack.BEHIND_OTHERS, 2)
    assert why_waiting(want(2), 0, free, everything).code is Lack.TOO_FEW_FREE
    why = why_waiting(want(1, labels={"rev": "2"}), 0, free, everything)
    assert why.text.startswith("The fleet has 0 of 1 devices of kind pulsecount with rev=2")


def test_the_estimate_counts_who_comes_first_and_how_long_they_may_keep_it():
    assert estimate([0, 0, 100], [], 2) == 0
    assert estimate([0, 100, 50], [], 3) == 100
    assert estimate([100, 50], [(1, 3600)], 1) == 100  # the other one takes what is free after 50 s
    assert estimate([50], [(1, 3600), (1, 60)], 1) == 50 + 3600 + 60
    assert estimate([50, 70], [(2, 10)], 1) == 80
    assert estimate([50], [(5, 3600)], 1) == 50  # waits for devices that do not exist: we pass it
    assert estimate([50], [], 2) is None
    assert estimate([], [], 1) is None


def test_a_lease_is_judged_by_its_deadline_its_sockets_and_the_last_warning():
    assert due(0, 3600, None, None, TERMS) is Due.NOTHING
    assert due(3600, 3600, None, None, TERMS) is Due.EXPIRED
    assert due(60, 3600, 0.0, None, TERMS) is Due.ABANDONED
    assert due(59, 3600, 0.0, None, TERMS) is Due.NOTHING
    assert due(2401, 3600, None, None, TERMS) is Due.WARN
    assert due(2700, 3600, None, 2401, TERMS) is Due.NOTHING
    assert due(2701, 3600, None, 2401, TERMS) is Due.WARN


def test_a_restart_neither_ends_nor_lengthens_a_lease():
    assert left_after_restart(1000, TERMS) == 1000
    assert left_after_restart(-50, TERMS) == 60  # long enough to be extended
    assert left_after_restart(90_000, TERMS) == 3600  # the wall clock was set back
