"""`fieldstation station new`: a small station project that runs at once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fieldstation.core.errors import FieldstationError

_PYPROJECT = """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["fieldstation[station]", "pytest>=8"]

[tool.fieldstation.station]
config = "procedures.config:Config"

[tool.fieldstation.station.procedures]
thermometer = "procedures.thermometer:run"
system_checks = "system_checks"

[tool.pytest.ini_options]
pythonpath = ["."]
markers = ["version_change: has to pass before a station switches to this version"]
"""

_CONFIG = """\
{{
    "general": {{
        "config_revision": 0,
        "software_version": "0.1.0",
        "system_identifier": "{name}"
    }},
    "logging_verbosity": {{
        "file_archive": "DEBUG",
        "console_prints": "INFO",
        "message_sending": "WARNING"
    }},
    "updater": null,
    "backend": null,
    "system_checks": {{
        "seconds_between_checks": 60
    }},
    "thermometer": {{
        "seconds_between_datapoints": 10
    }}
}}
"""

_CONFIG_CLASS = '''\
"""The settings of this station: one section per procedure."""

import pydantic

import fieldstation.station


class ThermometerConfig(pydantic.BaseModel):
    seconds_between_datapoints: int = pydantic.Field(ge=1, le=7200)


class Config(fieldstation.station.Config):
    thermometer: ThermometerConfig | None = None
'''

_PROCEDURE = '''\
"""Read a thermometer on the time grid. Put your instrument where the random numbers are."""

import random
import time

from fieldstation.station import DataMessageBody, Logger, MessagingAgent, get_time_to_next_datapoint
from procedures.config import Config


def read_temperature() -> float:
    return round(random.gauss(21.0, 0.5), 2)


def run(config: Config, logger: Logger) -> None:
    agent = MessagingAgent()
    while True:
        temperature = read_temperature()
        agent.add_message(DataMessageBody(data={"temperature": temperature}))  # returns when it is on the disk
        logger.info(f"{temperature} degrees Celsius")
        time.sleep(get_time_to_next_datapoint(config.thermometer.seconds_between_datapoints))
'''

_TEST = '''\
"""What has to hold on the station itself before it switches to this version."""

import tomllib
from pathlib import Path

import pytest

from procedures.config import Config
from procedures.thermometer import read_temperature

PROJECT = Path(__file__).parent.parent


@pytest.mark.version_change
def test_the_config_is_for_this_version() -> None:
    config = Config.load_file(PROJECT / "config" / "config.json")
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert config.general.software_version.as_identifier() == version


def test_the_thermometer_gives_a_number() -> None:
    assert -50 < read_temperature() < 100
'''

_README = """\
# {name}

    fieldstation station start     # in the background; `run` stays in the foreground
    fieldstation station status
    fieldstation station logs
    fieldstation station queue
    fieldstation station stop
    pytest

What the station may be told is in `procedures/config.py`, what it is told in `config/config.json`. Readings lie in
`data/messages/`, one file per UTC day. Set `backend` in the config to send them to a server.
"""

_GITIGNORE = "data/\nconfig/config.json\nconfig/.env\n.venv/\nrun.lock\n__pycache__/\n"


class NotEmptyError(FieldstationError):
    """{path} is not empty; nothing was written. Name a folder that is not there yet."""


def new_project(directory: Path, *, name: str | None = None, root: Path | None = None) -> str:
    """Write the project and return its name; `root` is the TUF root that its releases will be checked against."""
    if directory.exists() and any(directory.iterdir()):
        raise NotEmptyError(path=directory)
    if root is not None and not root.is_file():
        raise FieldstationError(f"The root file {root} does not exist; nothing was written.")
    name = name or re.sub(r"[^a-z0-9-]+", "-", directory.absolute().name.lower()).strip("-") or "station"
    files = {
        "pyproject.toml": _PYPROJECT,
        "config/config.json": _CONFIG,
        "config/config.template.json": _CONFIG,
        "procedures/__init__.py": "",
        "procedures/config.py": None,
        "procedures/thermometer.py": None,
        "tests/test_station.py": None,
        "README.md": _README,
        ".gitignore": None,
    }
    plain = {
        "procedures/config.py": _CONFIG_CLASS,
        "procedures/thermometer.py": _PROCEDURE,
        "tests/test_station.py": _TEST,
        ".gitignore": _GITIGNORE,
    }
    for path, template in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(plain[path] if template is None else template.format(name=name))
    (directory / "config" / "config.json").chmod(0o600)
    if root is not None:
        (directory / "config" / "trust").mkdir()
        shutil.copyfile(root, directory / "config" / "trust" / "root.json")
    return name
