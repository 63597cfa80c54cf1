"""A server process as a supervisor sees it: its ready line, its exit codes, and that it ends when told."""

import signal
import sys
import textwrap

import pytest

from fieldstation.testing import ServerProcess, wait_for

pytestmark = pytest.mark.timeout(120)

SERVER = """
import asyncio, sys, time
from fieldstation.core import service

class Server:
    name = "server"
    async def start(self): {start}
    async def run(self): {run}
    async def stop(self): {stop}
    def health(self): return {{"ok": True}}

asyncio.run(service.run([Server()], ready_url=lambda: "http://127.0.0.1:1", stop_deadline_s={deadline}))
"""


@pytest.fixture
def server(tmp_path):
    started = []

    def start(*, start="pass", run="await asyncio.Event().wait()", stop="pass", deadline=8.0):
        script = tmp_path / "server.py"
        script.write_text(textwrap.dedent(SERVER.format(start=start, run=run, stop=stop, deadline=deadline)))
        started.append(ServerProcess([sys.executable, script]))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_stops_cleanly(server, number):
    process = server(stop="sys.stderr.write('stopped')")
    assert process.wait_ready() == "http://127.0.0.1:1"
    process.send(number)
    assert process.wait() == 0
    assert "stopped" in process.output


def test_killed_it_is_gone_at_once(server):
    process = server()
    process.wait_ready()
    assert process.kill() == -signal.SIGKILL


def test_a_stop_that_hangs_is_left_behind(server):
    process = server(stop="await asyncio.Event().wait()", deadline=0.2)
    process.wait_ready()
    assert process.stop() == 0
    assert "server did not stop in time and is left behind" in process.output


@pytest.mark.parametrize("hang", ["time.sleep(60)", "sum(0 for _ in iter(int, 1))"])
def test_an_event_loop_that_hangs_is_ended_with_exit_code_1(server, hang):
    process = server(run=f"sys.stderr.write('hanging\\n'); {hang}", deadline=0.2)
    process.wait_ready()
    wait_for(lambda: "hanging" in process.output)
    assert process.stop() == 1
    assert "something does not stop" in process.output


def test_a_failed_start_leaves_no_ready_line(server):
    process = server(start="raise OSError('port taken')")
    assert process.wait() == 1
    assert "port taken" in process.output
    assert "ready" not in process.output.split("\n")[0]


def test_a_reader_that_left_does_not_keep_it_from_working(server, tmp_path):
    server(run="sys.stderr.write('working\\n'); await asyncio.Event().wait()").wait_ready()
    process = ServerProcess(["bash", "-c", f"(sleep 0.2; exec {sys.executable} {tmp_path / 'server.py'}) | true"])
    try:
        wait_for(lambda: "working" in process.output, what="the server to go on")
    finally:
        process.kill()
