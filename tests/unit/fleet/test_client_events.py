from __future__ import annotations

import json
from typing import Any

import pytest

from fieldstation.fleet.blocking.dispatch import Dispatcher
from fieldstation.fleet.blocking.handlers import (
    AbstractEventHandler,
    AvailabilityWaiter,
    DefaultBaseEventHandler,
    ReservationExtender,
    register,
)
from fieldstation.fleet.client.events import Event, parse


def test_the_released_list_keeps_its_order_and_fields() -> None:
    text = '{"serial":"A1","contents":[{"results":[["u-1","31995"]],"batch_id":"b-9","event":"results"},{"event":"x"}]}'
    assert parse(text) == [
        Event("A1", "results", {"results": [["u-1", "31995"]], "batch_id": "b-9"}),
        Event("A1", "x", {}),
    ]


def test_the_documents_single_object_is_accepted() -> None:
    assert parse({"event": "results", "contents": {"data": "hello!"}}) == [Event("meta", "results", {"data": "hello!"})]


def test_malformed_items_do_not_take_the_others_with_them() -> None:
    contents = [None, {}, {"event": ""}, 5, {"event": "good"}]
    assert parse(json.dumps({"serial": "A", "contents": contents})) == [Event("A", "good", {})]


@pytest.mark.parametrize("message", [None, "", "{", "[]", 5, b"\xff", {"serial": 5, "contents": []}, {"serial": "A"}])
def test_garbage_is_no_event(message: Any) -> None:
    assert parse(message) == []


class Parent(AbstractEventHandler):
    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.calls: list[Any] = []

    @register("results", "data", "serial")
    def results(self, data: Any, serial: str) -> None:
        self.calls.append(("parent", data, serial))


class Child(Parent):
    def results(self, data: Any, serial: str) -> None:
        self.calls.append(("child", data, serial))

    @register("one")
    @register("two")
    def more(self) -> None:
        self.calls.append("more")


def test_fields_are_passed_in_order_and_missing_ones_mean_no_call() -> None:
    handler = Parent(Dispatcher())
    handler.handleEvent(Event("A", "results", {"data": 1}))
    handler.handleEvent(Event("A", "results", {}))
    assert handler.calls == [("parent", 1, "A")]


def test_an_overridden_method_stays_registered_and_is_called_once() -> None:
    handler = Child(Dispatcher())
    for name in ("results", "one", "two"):
        handler.handleEvent(Event("A", name, {"data": 1}))
    assert handler.calls == [("child", 1, "A"), "more", "more"]
    parent = Parent(Dispatcher())
    parent.handleEvent(Event("A", "one", {}))
    assert parent.calls == []


def test_a_broken_handler_does_not_stop_those_after_it(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(AbstractEventHandler):
        def handleEvent(self, event: Event) -> None:
            raise RuntimeError("broken on purpose")

    dispatcher = Dispatcher()
    good = Parent(dispatcher)
    dispatcher.addEventHandler(Broken(dispatcher))
    dispatcher.addEventHandler(good)
    dispatcher.handleEvent(Event("A", "results", {"data": 1}))
    assert len(good.calls) == 1
    assert "broken on purpose" in caplog.text


def test_send_event_reaches_every_handler() -> None:
    dispatcher = Dispatcher()
    one, two = Parent(dispatcher), Parent(dispatcher)
    dispatcher.addEventHandler(one)
    dispatcher.addEventHandler(two)
    one.sendEvent(Event("A", "results", {"data": 2}))
    assert one.calls == two.calls == [("parent", 2, "A")]


def test_ready_made_handlers_do_what_their_names_say() -> None:
    extended: list[Any] = []

    class Client:
        def extend(self, serials: Any) -> Any:
            extended.append(serials)
            return serials

    import logging

    dispatcher = Dispatcher()
    waiter = AvailabilityWaiter(dispatcher)
    for handler in (
        ReservationExtender(dispatcher, Client(), logging.getLogger("t")),
        waiter,
        DefaultBaseEventHandler(dispatcher),
    ):
        dispatcher.addEventHandler(handler)
    dispatcher.handleEvent(Event("A", "reservation ending soon", {}))
    dispatcher.handleEvent(Event("meta", "devices_available", {"amount": 3}))
    for name in ("initialized", "failure", "reservation end"):
        dispatcher.handleEvent(Event("A", name, {}))
    assert extended == [["A"]]
    assert waiter.waitForAvailable(3, 0)
    assert not waiter.waitForAvailable(4, 0)
