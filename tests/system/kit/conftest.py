"""A real mosquitto on a free port of loopback, and the certificates of a small private CA."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fieldstation.testing import Authority, free_port


def until(condition: Callable[[], bool], what: str, deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"waited {deadline_s} s for {what}"
        time.sleep(0.01)


class Broker:
    """mosquitto as a child process; `kill` and `start` again keep the port and the folder."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"user root\nlistener {self.port} 127.0.0.1\n{settings}\n")
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.fail("mosquitto is not installed here; install it with: apt-get install -y mosquitto")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._config)], stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers, f"mosquitto: {self._log.read_text()}")
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[[str], Broker]]:
    brokers: list[Broker] = []

    def make(settings: str = "allow_anonymous true") -> Broker:
        folder = tmp_path / f"broker{len(brokers)}"
        folder.mkdir()
        brokers.append(Broker(folder, settings))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.kill()


@pytest.fixture
def broker(make_broker: Callable[[str], Broker]) -> Broker:
    return make_broker("allow_anonymous true\nmax_queued_messages 0").start()


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")
