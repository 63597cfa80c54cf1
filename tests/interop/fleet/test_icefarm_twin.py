"""Unmodified published clients on boards that are the digital twin: true counts, and circuits that cannot be known."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.fleet.conftest import ROOT, available

from fieldstation.testing import running, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a control with three boards."""
    folder = tmp_path_factory.mktemp("twin")
    config = folder / "worker.toml"
    config.write_text(f"[fleet.worker.settings.simulated.twin]\ncache = {json.dumps(str(folder / 'answers'))}\n")
    database = f"sqlite:///{folder / 'fleet.db'}"
    with (
        running("fieldstation", "fleet", "control", "--port", "0", "--database", database, cwd=folder) as control,
        running(
            *("fieldstation", "fleet", "worker", "--control", control.url, "--name", "bench", "--port", "0"),
            *("--simulate", "3", "--twin", "--config", config, "--dir", folder / "worker"),
            cwd=folder,
        ),
    ):
        wait_for(lambda: available(control.url) == 3, 30)
        yield control.url


def shipped(folder: Path, name: str) -> Path:
    path = folder / f"{name}.bin"
    path.write_bytes(gzip.decompress((ROOT / f"tests/data/twin/{name}.bin.gz").read_bytes()))
    return path


def test_published_circuits_give_their_frequency_within_one_pulse(published: Any, url: str, tmp_path: Path) -> None:
    folder = ROOT.parent / "shared/data/icefarm"
    expected = {folder / f"circuit_generated_{khz}Khz.bin": khz * 1000 for khz in (2, 8, 32)}
    if not all(path.is_file() for path in expected):
        expected = {shipped(tmp_path, "divider"): 4800}
    wait_for(lambda: available(url) == 3, 30)
    report = published.run(url, "published", "pulsecount", "evaluate", *expected)
    assert len(report["results"]) == 2 * len(expected)
    for _, path, pulses in report["results"]:
        assert abs(int(pulses) - expected[Path(path)]) <= 1, path


def test_circuit_that_cannot_be_known_ends_and_the_others_count(published: Any, url: str, tmp_path: Path) -> None:
    ring, divider = shipped(tmp_path, "ring"), shipped(tmp_path, "divider")
    wait_for(lambda: available(url) == 3, 30)
    report = published.run(url, "published", "pulsecount", "evaluate", ring, divider)
    found = {(serial, path): value for serial, path, value in report["results"]}
    assert len(found) == 4
    for (_, path), value in found.items():
        assert (value == "4800") if path == str(divider) else (value == "None"), found
