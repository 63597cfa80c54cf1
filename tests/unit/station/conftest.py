"""A station's place in a temporary folder, and the config that today's stations ship."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

# The template of today's stations, its misspelt key included.
TODAY: dict[str, Any] = {
    "general": {"config_revision": 1, "software_version": "1.2.3", "system_identifier": "roof"},
    "logging_verbosity": {"file_archive": "DEBUG", "console_prints": "INFO", "message_sending": "WARNING"},
    "updater": {
        "repository": "tum-esm/ivy",
        "provider": "github",
        "provider_host": "github.com",
        "access_token": None,
        "source_conflict_behaviour": "reuse",
    },
    "backend": {
        "provider": "thingsboard",
        "mqtt_connection": {
            "host": "localhost", "port": 1883, "client_id": "roof", "username": "roof-user", "password": "hunter2!",
        },
        "max_parallel_messages": 50,
        "max_drain_time": 300,
    },
    "dummy_procedure": {"seconds_between_datapoints": 10},
    "system_checks": {"seconds_between_checks": 120},
}  # fmt: skip


@pytest.fixture
def today() -> dict[str, Any]:
    return copy.deepcopy(TODAY)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty station of version 1.2.3 that is the current one."""
    folder = tmp_path / "ivy" / "1.2.3"
    (folder / "config").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "ivy"\nversion = "1.2.3"\n')
    monkeypatch.setenv("FIELDSTATION_STATION_DIR", str(folder))
    for name in ("IVY_DATA_DIR", "IVY_ROOT_DIR", "FIELDSTATION_STATION_SUPERVISED"):
        monkeypatch.delenv(name, raising=False)
    return folder
