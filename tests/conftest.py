"""What every test may ask for, and what no test may do: reach beyond loopback, or be skipped silently."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldstation.core.security import is_loopback
from fieldstation.testing import MissingProgramError, Mosquitto, Nats, Postgres, mosquitto, nats_server, postgres_server
from fieldstation.testing.programs import program

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="repeat the history of the fleet's fire tests that printed this seed")
    given = os.environ.get("FIELDSTATION_FIRE_S")
    parser.addoption("--fire-s", type=float, default=given, help="seconds for which the fleet's fire tests burn")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server for the whole run (one for each xdist worker)."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The address of an empty database on it, for this test alone."""
    return postgres.new_database()


@pytest.fixture
def nats(tmp_path) -> Iterator[Nats]:
    """A nats-server with JetStream for this test alone; it may be killed and started again."""
    with nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def nats_url(nats: Nats) -> str:
    return nats.url


@pytest.fixture(name="mosquitto")
def mosquitto_broker(tmp_path) -> Iterator[Mosquitto]:
    """A mosquitto broker for this test alone; it may be killed and started again."""
    with mosquitto(tmp_path / "mosquitto") as server:
        yield server


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """A test that reaches for the network fails here, not only on a machine that has none."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(str(address[0])):
            if str(address[0]).endswith(".invalid"):  # a name that exists nowhere, and no name server is asked
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            raise AssertionError(f"a test tried to reach {address[0]}; tests stay on loopback")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests may take longest: in the end nobody waits for one of them alone."""
    longest: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0), limit.args[0] if limit is not None else 0)
    items.sort(key=lambda item: -longest[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.needs("openssl")`: the test fails with the install command where the program is missing."""
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            program(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, MissingProgramError):
        # One sentence is enough; it travels with the report from an xdist worker to the summary.
        report.longrepr = str(call.excinfo.value)
        report.user_properties.append(("missing program", str(call.excinfo.value)))
    return report


def pytest_terminal_summary(terminalreporter) -> None:
    missing = [
        (sentence, report.nodeid)
        for reports in (terminalreporter.getreports("error"), terminalreporter.getreports("failed"))
        for report in reports
        for key, sentence in getattr(report, "user_properties", [])  # a file that does not import has none
        if key == "missing program"
    ]
    if missing:
        terminalreporter.section("tests that could not run here", red=True)
        for sentence, nodeid in sorted(missing):
            terminalreporter.write_line(f"{nodeid}: {sentence}")


def pytest_sessionfinish(session):
    """Leave the names of what failed for tools/run_tests.py; xdist's workers report to the one that writes."""
    place = os.environ.get("FIELDSTATION_FAILED_TESTS")
    if place and not hasattr(session.config, "workerinput"):
        stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
        failed = {report.nodeid for key in ("failed", "error") for report in stats.get(key, [])}
        Path(place).write_text("\n".join(sorted(failed)))
