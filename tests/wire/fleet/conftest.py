from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

# Imported by path: tests are no package, and another folder's fake must not be taken for this one.
_spec = importlib.util.spec_from_file_location("fake_fleet", Path(__file__).with_name("fake_fleet.py"))
assert _spec is not None
assert _spec.loader is not None
fake_fleet = importlib.util.module_from_spec(_spec)
sys.modules["fake_fleet"] = fake_fleet
_spec.loader.exec_module(fake_fleet)


@pytest.fixture
async def fleet() -> AsyncIterator[Any]:
    async with fake_fleet.FakeFleet() as running:
        yield running


@pytest.fixture
def bitstream(tmp_path: Path) -> Path:
    file = tmp_path / "circuit.bin"
    file.write_bytes(bytes(104_090))
    return file
