"""The documented blocking clients, called as the document calls them, against the fake."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import fake_fleet
import pytest

from fieldstation.core.blocking import portal
from fieldstation.fleet import (
    BaseClient,
    Event,
    EventServer,
    PulseCountClient,
    PulseCountEvaluation,
    VarMaxClient,
    register,
)
from fieldstation.fleet.blocking.handlers import AbstractEventHandler
from fieldstation.fleet.client.address import parse_all
from fieldstation.fleet.client.http import new_session
from fieldstation.fleet.client.line import Line
from fieldstation.fleet.errors import ControlUnreachableError, NotEnoughDevicesError

LOGGER = logging.getLogger("test")


@pytest.fixture
def served() -> Iterator[Any]:
    """The fake, on a loop of its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

    async def end() -> None:
        await fake.__aexit__()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    fake = fake_fleet.FakeFleet()
    call(fake.__aenter__())
    fake.call = call
    yield fake
    call(end())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_every_call_of_the_document(served: Any, bitstream: Path) -> None:
    client = PulseCountClient(served.url, "example icefarm client", LOGGER)
    client.reserve(1)
    serial_id = client.getSerials()[0]
    for serial, filepath, pulses in client.evaluateBitstreams([bitstream, str(bitstream)], serials=[serial_id]):
        assert (serial, Path(filepath), pulses) == ("A", bitstream, 104090)
    client.reserve(1)
    serials = client.getSerials()
    commands = [
        PulseCountEvaluation(serials, bitstream),
        PulseCountEvaluation(serials[0], bitstream),
        PulseCountEvaluation(serials[1], bitstream),
    ]
    found = []
    for serial, evaluation, pulses in client.evaluateEvaluations(commands):
        assert pulses == 104090
        found.append((serial, commands.index(evaluation)))
    assert sorted(found) == [("A", 0), ("A", 1), ("B", 0), ("B", 2)]
    assert client.extend("A") == ["A"]
    assert client.extendAll() == ["A", "B"]
    assert client.available() == 0
    assert client.reboot(["A"], timeout=5) == []
    assert client.reboot([]) == []
    assert client.end("B") == ["B"]
    assert client.endAll() == ["A"]
    assert client.endAll() == []
    client.stop()
    client.stop()
    assert client.endAll() == []


def test_results_also_have_attributes(served: Any, bitstream: Path) -> None:
    with PulseCountClient(served.url, "ann", LOGGER) as client:
        client.reserve(1)
        (result,) = client.evaluateBitstreams([bitstream])
        assert (result.serial, result.evaluation.filepath, result.value) == ("A", bitstream, 104090)
        assert isinstance(result.value, int)


def test_both_import_spellings_are_the_same_names() -> None:
    from fieldstation.fleet.client import drivers
    from fieldstation.fleet.client.lib import drivers as lib_drivers
    from fieldstation.fleet.client.lib import pulsecount, utils, varmax

    assert drivers.PulseCountClient is lib_drivers.PulseCountClient is PulseCountClient
    assert pulsecount.PulseCountEvaluation is PulseCountEvaluation
    assert varmax.VarMaxClient is VarMaxClient
    assert utils.EventServer is EventServer


def test_variance_values_are_floats_with_samples_when_asked_for(served: Any, bitstream: Path) -> None:
    served.answer = lambda *_: [0.0, [1, 1, 1]]
    with VarMaxClient(served.url, "ann", LOGGER, send_waveform=True) as client:
        client.reserve(1)
        ((_, _, value),) = client.evaluateBitstreams([bitstream])
    assert value == (0.0, [1, 1, 1])
    ((_, asked),) = [post for post in served.posts if post[0] == "/reserve"]
    assert asked["kind"] == "variance"
    assert asked["args"] == {
        "flush_interval_seconds": 10,
        "flush_at_bitstreams_remaining": 25,
        "send_waveform": True,
    }


def test_any_kind_can_be_reserved_with_its_arguments(served: Any) -> None:
    with BaseClient(served.url, "ann", LOGGER) as client:
        assert client.reserveKind(1, "example state", {"message": "hi"}) == ["A"]
    (asked,) = [body for path, body in served.posts if path == "/reserve"]
    assert (asked["kind"], asked["args"]) == ("example state", {"message": "hi"})


def test_too_few_devices_raise_and_other_refusals_are_false(served: Any) -> None:
    async def refuse(body: dict[str, Any]) -> tuple[int, Any]:
        return 400, {"error": {"code": "unknown_kind", "message": "No such kind."}}

    with PulseCountClient(served.url, "ann", LOGGER) as client:
        with pytest.raises(NotEnoughDevicesError):
            client.reserve(3)
        served.replies["/reserve"] = refuse
        assert client.reserve(1) is False
        served.replies["/extend"] = refuse
        assert client.extend(["A"]) is False


def test_constructor_raises_when_there_is_no_control() -> None:
    with pytest.raises(ControlUnreachableError):
        PulseCountClient("http://127.0.0.1:9", "ann", LOGGER)


def test_leaving_a_loop_early_lets_the_client_go_on(served: Any, bitstream: Path) -> None:
    with PulseCountClient(served.url, "ann", LOGGER) as client:
        client.reserve(1)
        for _ in client.evaluateBitstreams([bitstream] * 50):
            break
        assert len(list(client.evaluateBitstreams([bitstream] * 3))) == 3


def test_two_threads_may_evaluate_at_once(served: Any, bitstream: Path) -> None:
    with PulseCountClient(served.url, "ann", LOGGER) as client:
        client.reserve(2)
        counts = []

        def work() -> None:
            counts.append(len(list(client.evaluateBitstreams([bitstream] * 20))))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [40, 40]


class Remembering(AbstractEventHandler):
    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.heard: list[Any] = []
        self.arrived = threading.Event()

    @register("getdata", "serial", "data")
    def data(self, serial: str, data: str) -> None:
        self.heard.append((serial, data))
        self.arrived.set()


def test_events_reach_handlers_in_both_documented_forms(served: Any) -> None:
    with PulseCountClient(served.url, "ann", LOGGER) as client:
        client.reserve(1)
        handler = Remembering(client)
        client.addEventHandler(handler)
        assert client.requestWorker("A", "getdata", {"data": "Hello!"})
        served.call(served.until(lambda: bool(served.requests)))
        assert served.requests[0]["event"] == "getdata"
        served.call(served.tell("A", {"event": "getdata"}, {"event": "getdata", "data": "Hello!"}))
        assert handler.arrived.wait(5)
        handler.arrived.clear()
        served.call(served.sio.emit("event", '{"event": "getdata", "contents": {"data": "again"}}'))
        assert handler.arrived.wait(5)
    assert set(handler.heard) == {("A", "Hello!"), ("meta", "again")}


def test_event_server_listens_on_its_own(served: Any) -> None:
    server = EventServer("ann", [], LOGGER)
    handler = Remembering(server)
    server.addEventHandler(handler)
    try:
        assert server.connectControl(served.url)
        assert server.connectWorker(served.url + "/")
        assert not server.sendWorker("http://127.0.0.1:9", "request", b"")
        served.call(served.tell("A", {"event": "getdata", "data": 5}))
        assert handler.arrived.wait(5)
        handler.sendEvent(Event("B", "getdata", {"data": 6}))
        assert ("B", 6) in handler.heard
        assert server.sendWorker(served.url, "request", b"")
        server.disconnectWorker(served.url)
        server.disconnectWorker(served.url)
        assert not server.sendWorker(served.url, "request", b"")
    finally:
        server.exit()
    assert server.connectWorker(served.url)
    server.exit()


SCRIPT = """
import atexit, logging, signal, sys
from fieldstation.fleet import PulseCountClient
client = PulseCountClient(sys.argv[1], "script", logging.getLogger("script"))
atexit.register(client.endAll)
client.reserve(1)
print("reserved", flush=True)
"""


def script(served: Any, rest: str, host: str = "127.0.0.1") -> subprocess.Popen[str]:
    url = f"http://{host}:{served.port}"
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(rest), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


@pytest.mark.timeout(30)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_reservations_end_with_the_interpreter(served: Any, host: str) -> None:
    process = script(served, "", host)
    out, errors = process.communicate(timeout=20)
    assert (out, process.returncode) == ("reserved\n", 0), errors
    assert errors == ""
    assert served.held == {}


@pytest.mark.timeout(30)
def test_a_signal_ends_reservations_too(served: Any) -> None:
    process = script(served, "client.endOnSignal()\nprint('armed', flush=True)\nsys.stdin.read()")
    assert process.stdout is not None
    assert process.stdout.readline() == "reserved\n"
    assert process.stdout.readline() == "armed\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert served.held == {}


@pytest.mark.timeout(30)
def test_ctrl_c_in_the_middle_of_evaluating_ends_reservations_too(served: Any, bitstream: Path) -> None:
    served.answer = lambda *_: None
    process = script(served, f"for _ in client.evaluateBitstreams([{str(bitstream)!r}] * 100): pass")
    assert process.stdout is not None
    assert process.stdout.readline() == "reserved\n"
    served.call(served.until(lambda: bool(served.requests)))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert served.held == {}


@pytest.mark.timeout(30)
def test_an_end_called_from_a_signal_handler_works(served: Any) -> None:
    process = script(
        served,
        """
        signal.signal(signal.SIGTERM, lambda *_: (client.endAll(), sys.exit(3)))
        print("armed", flush=True)
        while True: client.available()
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reserved\n"
    assert process.stdout.readline() == "armed\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 3, errors
    assert served.held == {}


@pytest.mark.timeout(30)
def test_a_dead_server_does_not_hold_up_the_end(served: Any) -> None:
    process = script(served, "sys.stdin.read()", "localhost")
    assert process.stdout is not None
    assert process.stdout.readline() == "reserved\n"
    served.call(served.__aexit__())
    _, errors = process.communicate(timeout=25)
    assert process.returncode == 0
    assert "Traceback" not in errors, errors


@pytest.mark.timeout(60)
def test_a_line_that_failed_does_not_close_the_session_of_the_others_when_it_is_collected() -> None:
    """The library's client did, in a thread without a running loop such as this one: "Session is closed" ever after."""
    here = asyncio.new_event_loop()
    asyncio.set_event_loop(here)
    session = portal.call(opened())
    gc.disable()
    try:
        line = Line(session, lambda: parse_all("http://127.0.0.1:9", None), auth=dict, on_event=print)
        assert portal.call(line._connect()) is None
        gc.collect()
        assert not session.closed
    finally:
        gc.enable()
        portal.call(session.close())
        asyncio.set_event_loop(None)
        here.close()


async def opened() -> aiohttp.ClientSession:
    return new_session()
