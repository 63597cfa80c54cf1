"""The servers that other tests lean on start, serve, survive a kill and leave nothing behind."""

import socket
import sys

import pytest

from fieldstation.testing import MissingProgramError, ServerStartError, chromium, nats_server, program, running
from fieldstation.testing.services import OutsideServer

pytestmark = pytest.mark.timeout(180)


def test_each_test_gets_an_empty_database_of_a_real_postgresql(postgres):
    import psycopg

    first, second = postgres.new_database(), postgres.new_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE here (id int)")
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('here')").fetchone() == (None,)


def test_nats_keeps_its_port_and_its_stream_through_a_kill(tmp_path):
    with nats_server(tmp_path, mqtt=True) as nats:
        port = nats.port
        nats.kill()
        assert not nats.healthy()
        nats.start()
        assert nats.port == port
        assert nats.healthy()
        assert nats.mqtt_port is not None
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1.0)


def test_mosquitto_accepts_connections(mosquitto):
    assert mosquitto.healthy()
    mosquitto.kill()
    assert not mosquitto.healthy()


def test_a_server_that_does_not_come_up_is_reported_with_what_it_wrote(tmp_path):
    server = OutsideServer([sys.executable, "-c", "print('no such luck')"], tmp_path, 1)
    with pytest.raises(ServerStartError, match="no such luck"):
        server.start()


def test_a_missing_program_answers_with_its_install_command():
    with pytest.raises(MissingProgramError, match=r"apt-get install .* no-such-program"):
        program("no-such-program")


def test_running_yields_the_address_of_the_ready_line_and_stops_cleanly():
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))\n"
        "print('ready http://127.0.0.1:1', flush=True)\n"
        "signal.pause()\n"
    )
    with running(sys.executable, "-c", script) as server:
        assert server.url == "http://127.0.0.1:1"
    assert server.process.returncode == 0


def test_running_reports_a_server_that_ends_before_it_is_ready():
    with (
        pytest.raises(ServerStartError, match=r"exit code 3.*port taken"),
        running(sys.executable, "-c", "import sys; sys.stderr.write('port taken'); sys.exit(3)"),
    ):
        pass


def test_the_browser_renders_a_page():
    with chromium() as browser:
        page = browser.new_page()
        page.set_content("<h1>ready</h1>")
        assert page.inner_text("h1") == "ready"
