"""The suite for real boards does not run without a fleet, and says so to whoever asked for it."""

from types import SimpleNamespace

import pytest
from tests.hardware import conftest as suite


def collected(url, *names):
    gone = []
    config = SimpleNamespace(
        getoption=lambda name, default: url,
        hook=SimpleNamespace(pytest_deselected=lambda items: gone.extend(items)),
    )
    items = [SimpleNamespace(path=suite.HERE.parent / name) for name in names]
    suite.pytest_collection_modifyitems(config, items)
    return [item.path.name for item in items], [item.path.name for item in gone]


def test_along_with_others_it_is_left_out():
    assert collected(None, "unit/test_a.py", "hardware/test_b.py") == (["test_a.py"], ["test_b.py"])


def test_alone_it_says_what_it_needs():
    with pytest.raises(pytest.UsageError, match="--url"):
        collected(None, "hardware/test_b.py")


def test_with_a_fleet_it_runs():
    assert collected("http://control:8080", "hardware/test_b.py") == (["test_b.py"], [])
