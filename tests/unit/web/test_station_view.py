"""What the panel knows of a station from its messages."""

import pytest

from fieldstation.web.station_view import SHOWN, StationView, difference, read_config


def config(revision, **more):
    return {"general": {"config_revision": revision, "software_version": "1.0.0"}, **more}


def answer(at, status, revision, **more):
    return {"timestamp": at, "body": {"variant": "config", "status": status, "config": config(revision), **more}}


@pytest.fixture
def view():
    return StationView("roof")


def test_the_newest_value_stands_whatever_order_messages_come_in(view):
    for at, value in ((2.0, 20), (1.0, 10), (3.0, "open")):
        view.take({"timestamp": at, "body": {"variant": "data", "data": {"t": value}}})
    assert (view.series["t"].last, view.series["t"].at) == ("open", 3.0)
    assert view.series["t"].spark() == [10, 20]


def test_a_sparkline_is_short_and_ends_with_the_newest(view):
    for at in range(1000):
        view.take({"timestamp": at, "body": {"variant": "data", "data": {"t": at}}})
    spark = view.series["t"].spark()
    assert len(spark) <= SHOWN
    assert spark[-1] == 999


def test_names_without_end_do_not_fill_memory(view):
    for number in range(2000):
        view.take({"timestamp": 1, "body": {"variant": "data", "data": {f"n{number}": 1}}})
    assert len(view.series) == 300


def test_only_what_was_in_force_can_be_gone_back_to(view):
    for message in (
        answer(1, "startup", 1),
        answer(2, "received", 2),
        answer(3, "rejected", 2, reason="no"),
        answer(4, "accepted", 3),
    ):
        view.take(message)
    assert (view.revision, sorted(view.past)) == (3, [1, 3])
    assert view.answer_to(2, 0)["reason"] == "no"
    assert view.answer_to(2, 3.5) is None
    assert view.answer_to(4, 0) is None


@pytest.mark.parametrize("entry", [{}, {"timestamp": 1}, {"timestamp": "x", "body": {}}, {"timestamp": 1, "body": []}])
def test_what_is_none_of_ours_is_an_error_that_the_reader_expects(view, entry):
    with pytest.raises((KeyError, ValueError, TypeError)):
        view.take(entry)


def test_its_state_is_what_it_tells_of_itself(view):
    assert (view.state, view.queued) == ("silent", None)
    view.status = {"ok": True, "queues": {"a": {"depth": 3}, "b": {"depth": 4}}, "version": "2.0.0"}
    assert (view.state, view.queued, view.version) == ("ok", 7, "2.0.0")
    view.status = {"ok": False}
    assert view.state == "degraded"


def test_a_typed_config_gets_its_revision_and_a_wrong_one_a_sentence():
    assert read_config('{"general": {"software_version": "1.0.0", "config_revision": 9}}', 4) == config(4)
    for text, word in (("{", "no JSON"), ("[]", "section"), ('{"general": {}}', "software_version")):
        with pytest.raises(ValueError, match=word):
            read_config(text, 1)


def test_the_difference_has_what_changed_and_nothing_when_nothing_did():
    assert difference(config(1), config(1)) == []
    lines = difference(config(1, a=1), config(1, a=2))
    assert '-  "a": 1' in lines
    assert '+  "a": 2' in lines
