from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldstation.fleet.client.window import (
    BalancedBatchFactory,
    PatientBatchFactory,
    QuickBatchFactory,
    Window,
    by_message,
)


def filled(serials: str, count: int, batches: BalancedBatchFactory | PatientBatchFactory | QuickBatchFactory) -> Window:
    window = Window(batches)
    for index in range(count):
        for serial in serials:
            window.add(serial, index, f"id-{index}")
    return window


def test_a_device_gets_at_most_its_window_and_is_refilled_answer_by_answer() -> None:
    window = filled("A", 40, BalancedBatchFactory())
    assert len(window.next(0)) == 14
    assert window.next(0) == []
    assert window.answered("A", "id-0", 1) is not None
    assert [ask.index for ask in window.next(1)] == [14]


def test_one_slow_device_does_not_hold_up_another() -> None:
    window = filled("AB", 40, BalancedBatchFactory())
    window.next(0)
    for index in range(40):
        window.answered("B", f"id-{index}", 0)
        window.next(0)
    assert len(window.outstanding("A")) == 14
    assert window.outstanding("B") == []


def test_devices_take_turns_in_what_is_sent() -> None:
    window = filled("ABCD", 25, BalancedBatchFactory())
    assert [ask.serial for ask in window.next(0)[:8]] == list("ABCDABCD")


def test_patient_batches_wait_for_the_whole_round() -> None:
    window = filled("A", 12, PatientBatchFactory(5))
    assert len(window.next(0)) == 5
    for index in range(4):
        window.answered("A", f"id-{index}", 0)
    assert window.next(0) == []
    window.answered("A", "id-4", 0)
    assert len(window.next(0)) == 5


def test_quick_batches_do_not_wait() -> None:
    assert len(filled("A", 600, QuickBatchFactory()).next(0)) == 600


def test_repeats_and_strangers_are_no_answers() -> None:
    window = filled("A", 2, BalancedBatchFactory())
    window.next(0)
    assert window.answered("A", "id-0", 0) is not None
    assert window.answered("A", "id-0", 0) is None
    assert window.answered("A", "id-9", 0) is None
    assert window.answered("Z", "id-1", 0) is None
    assert len(window) == 1


def test_only_devices_that_owe_an_answer_are_silent() -> None:
    window = filled("AB", 1, BalancedBatchFactory())
    assert window.next_check(30) is None
    window.next(10)
    window.answered("B", "id-0", 20)
    assert window.silent(39.9, 30) == []
    assert window.silent(40, 30) == ["A"]
    assert window.next_check(30) == 40
    window.restart("A", 40)
    assert window.silent(69, 30) == []


def test_a_device_that_was_idle_is_not_overdue_when_it_gets_new_work() -> None:
    window = Window(PatientBatchFactory(1))
    window.add("A", 0, "x")
    window.next(0)
    window.answered("A", "x", 1)
    window.add("A", 1, "y")
    window.next(100)
    assert window.silent(101, 30) == []


def test_giving_up_returns_what_was_sent_and_what_was_not() -> None:
    window = filled("A", 20, BalancedBatchFactory())
    window.next(0)
    assert len(window.give_up("A")) == 20
    assert len(window) == 0
    assert window.give_up("A") == []


# How fast a busy machine makes examples says nothing about the window.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 9)), max_size=60), st.integers(1, 6), st.integers(0, 3)
)
def test_every_evaluation_is_asked_exactly_once(asked: list[tuple[str, int]], size: int, target: int) -> None:
    window = Window(BalancedBatchFactory(size, target))
    for number, (serial, _) in enumerate(asked):
        window.add(serial, number, f"id-{number}")
    seen = []
    while len(window):
        sent = window.next(0)
        if not sent and not window.outstanding("ABC"):
            pytest.fail("the window neither sends nor waits")
        seen += sent
        for ask in window.outstanding("ABC"):
            assert window.answered(ask.serial, ask.wire_id, 0) is ask
    assert sorted(ask.index for ask in seen) == list(range(len(asked)))


def test_devices_of_one_worker_share_a_message() -> None:
    window = filled("ABC", 2, BalancedBatchFactory())
    groups = by_message(window.next(0), {"A": "one", "B": "one", "C": "two"})
    assert {key: [ask.serial for ask in asks] for key, asks in groups.items()} == {
        ("one", 0): ["A", "B"],
        ("two", 0): ["C"],
        ("one", 1): ["A", "B"],
        ("two", 1): ["C"],
    }
