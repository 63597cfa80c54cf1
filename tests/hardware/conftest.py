"""The suite for a fleet that runs already, with real boards or simulated ones: `pytest tests/hardware --url URL`.

It does nothing without --url. A token goes into FIELDSTATION_TOKEN.
"""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldstation.fleet import PulseCountClient, VarMaxClient

HERE = Path(__file__).parent
LOG = logging.getLogger("hardware")
READY_S = 180  # two boards are flashed one after another on a slow hub


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware", "boards of a running fleet")
    group.addoption("--url", help="the control server's address; without it these tests do not run")
    group.addoption("--boards", type=int, default=2, help="how many boards to use (2)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    # The option does not exist when this folder was only collected along with the others.
    if not mine or config.getoption("--url", default=None):
        return
    if len(mine) == len(items):
        raise pytest.UsageError(
            "tests/hardware needs a fleet that runs: pytest tests/hardware --url http://CONTROL:8080"
        )
    items[:] = [item for item in items if item not in mine]
    config.hook.pytest_deselected(items=mine)


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> None:
    """Boards may be anywhere: here tests may reach beyond loopback."""


@pytest.fixture(scope="session")
def url(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--url"))


@pytest.fixture(scope="session")
def boards(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--boards"))


@pytest.fixture(scope="module")
def counter(url: str, boards: int) -> Iterator[PulseCountClient]:
    """A client that holds the boards for the whole module."""
    with PulseCountClient(url, f"hardware-suite-{os.getpid()}", LOG) as client:
        client.reserve(boards, wait_for_available=True, available_timeout=READY_S)
        yield client


@pytest.fixture(scope="module")
def sampler(url: str, boards: int) -> Iterator[VarMaxClient]:
    """The same for variances, with their waveforms."""
    with VarMaxClient(url, f"hardware-suite-{os.getpid()}", LOG, send_waveform=True) as client:
        client.reserve(boards, wait_for_available=True, available_timeout=READY_S)
        yield client


@pytest.fixture(scope="session")
def divider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bitstream that divides the FPGA's clock of 48 MHz by 10,000: 4,800 pulses in the second that is counted."""
    path = tmp_path_factory.mktemp("hardware") / "divider.bin"
    path.write_bytes(gzip.decompress((HERE.parent / "data/twin/divider.bin.gz").read_bytes()))
    return path
