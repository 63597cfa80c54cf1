"""The line that other tests cut and hold: bytes keep their order, connections need not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from fieldstation.testing import wait_for
from fieldstation.testing.line import Line

pytestmark = pytest.mark.timeout(60)


class Echo:
    """Sends back what it gets, and notes the first bytes of each connection in the order in which they came."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(near,), daemon=True).start()

    def _echo(self, near: socket.socket) -> None:
        with near:
            first = True
            try:
                while data := near.recv(65536):
                    if first:
                        self.heard.append(data)
                    first = False
                    near.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def line(echo: Echo) -> Iterator[Line]:
    made = Line(echo.port, seed=1)
    yield made
    made.close()


def connect(line: Line) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), 10)


def silent(near: socket.socket) -> bool:
    near.settimeout(0.3)
    try:
        near.recv(1)
    except TimeoutError:
        return True
    finally:
        near.settimeout(10)
    return False


def ended(near: socket.socket) -> bool:
    try:
        return near.recv(1) == b""
    except ConnectionError:
        return True


def test_bytes_arrive_whole_and_in_order_and_slow_when_asked(line: Line) -> None:
    line.delay_s = 0.2
    data = bytes(range(256)) * 4096
    with connect(line) as near:
        began = time.monotonic()
        threading.Thread(target=near.sendall, args=(data,), daemon=True).start()
        back = b""
        while len(back) < len(data):
            back += near.recv(65536)
    assert back == data
    assert time.monotonic() - began >= 0.4


def test_a_cut_breaks_connections_and_new_ones_are_taken(line: Line) -> None:
    with connect(line) as first:
        wait_for(lambda: line.connections == 1)
        line.cut()
        assert ended(first)
    with connect(line) as second:
        second.sendall(b"x")
        assert second.recv(1) == b"x"


def test_a_line_that_refuses_is_a_port_that_refuses_until_it_does_not(line: Line) -> None:
    with connect(line) as first:
        wait_for(lambda: line.connections == 1)
        line.refuse()
        assert ended(first)
    with pytest.raises(ConnectionRefusedError):
        connect(line)
    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind(("127.0.0.1", line.port))
    line.refuse(False)
    with connect(line) as second:
        second.sendall(b"x")
        assert second.recv(1) == b"x"


def test_a_held_line_swallows_and_breaks_when_it_is_let_go(line: Line) -> None:
    with connect(line) as near:
        wait_for(lambda: line.connections == 1)
        line.hold()
        near.sendall(b"lost")
        assert silent(near)
        line.hold(False)
        assert ended(near)


def test_a_stranded_connection_is_dead_for_ever_and_nobody_is_told(line: Line, echo: Echo) -> None:
    with connect(line) as old:
        wait_for(lambda: line.connections == 1)
        line.strand()
        old.sendall(b"lost")
        with connect(line) as new:
            new.sendall(b"x")
            assert new.recv(1) == b"x"
        assert silent(old)
    assert echo.heard == [b"x"]


def test_later_connections_overtake_earlier_ones(line: Line, echo: Echo) -> None:
    line.spread_s = 0.5
    names = [bytes([n]) for n in range(8)]
    nears = [connect(line) for _ in names]
    for near, name in zip(nears, names, strict=True):
        near.sendall(name)
    wait_for(lambda: len(echo.heard) == len(names), 30)
    assert sorted(echo.heard) == names
    assert echo.heard != names
    for near in nears:
        near.close()
