"""A control and a worker with four simulated boards for the whole module."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from fieldstation.testing import ServerProcess, running, wait_for

BITSTREAM_BYTES = 104_090


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The control's process; `url` is its address."""
    folder = tmp_path_factory.mktemp("fleet")
    database = f"sqlite:///{folder / 'fleet.db'}"
    worker = ("fieldstation", "fleet", "worker", "--name", "bench", "--port", "0", "--dir", folder / "worker")
    with (
        running("fieldstation", "fleet", "control", "--port", "0", "--database", database, deadline_s=40) as control,
        running(*worker, "--control", control.url, "--simulate", "4", deadline_s=40),
    ):
        yield control


@pytest.fixture
def all_free(servers: ServerProcess) -> Iterator[str]:
    """The control's address; every board is free before and after."""

    def free() -> bool:
        with urlopen(f"{servers.url}/available", timeout=5) as answer:
            return bool(json.load(answer)["amount"] == 4)

    wait_for(free, 40)
    yield servers.url
    wait_for(free, 40)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"circuit-{number}.bin" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    return paths
