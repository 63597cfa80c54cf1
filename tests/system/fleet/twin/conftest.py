"""A control, and a worker whose simulated boards are the twin."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from fieldstation.testing import ServerProcess, running, wait_for

ROOT = Path(__file__).parents[4]
DATA = ROOT / "tests/data/twin"
PUBLISHED = ROOT.parent / "shared/data/icefarm"
BOARDS = 2


def design(name: str) -> bytes:
    """Return a shipped design."""
    return gzip.decompress((DATA / f"{name}.bin.gz").read_bytes())


def circuits(folder: Path) -> dict[Path, int]:
    """The published circuits and their pulses where they are at hand; the shipped divider otherwise."""
    found = {PUBLISHED / f"circuit_generated_{khz}Khz.bin": khz * 1000 for khz in (2, 8, 32)}
    if all(path.is_file() for path in found):
        return found
    divider = folder / "divider.bin"
    divider.write_bytes(design("divider"))
    return {divider: 4800}


@dataclass(frozen=True)
class TwinFleet:
    url: str
    control: ServerProcess
    worker: ServerProcess
    cache: Path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwinFleet]:
    folder = tmp_path_factory.mktemp("twin-fleet")
    cache, config = folder / "answers", folder / "worker.toml"
    config.write_text(f"[fleet.worker.settings.simulated.twin]\ncache = {json.dumps(str(cache))}\n")
    database = f"sqlite:///{folder / 'fleet.db'}"
    with (
        running("fieldstation", "fleet", "control", "--port", "0", "--database", database, deadline_s=40) as control,
        running(
            *("fieldstation", "fleet", "worker", "--control", control.url, "--name", "bench", "--port", "0"),
            *("--simulate", str(BOARDS), "--twin", "--config", config, "--dir", folder / "worker"),
            deadline_s=40,
        ) as worker,
    ):

        def free() -> bool:
            with urlopen(f"{control.url}/available", timeout=5) as answer:
                return bool(json.load(answer)["amount"] == BOARDS)

        wait_for(free, 40)
        yield TwinFleet(control.url, control, worker, cache)
