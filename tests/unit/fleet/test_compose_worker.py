"""States and drivers of other packages take part when they are installed, by entry point."""

import pytest

from fieldstation.core.errors import ConfigError
from fieldstation.core.plugins import UnknownPluginError
from fieldstation.fleet import compose_worker
from fieldstation.fleet.worker_config import WorkerConfig

STATE = """
from fieldstation.fleet import AbstractState, reservable

@reservable("blinking", "hertz")
class BlinkingState(AbstractState):
    drivers = ("simulated",)
"""


@pytest.fixture
def installed_state(tmp_path, monkeypatch):
    (tmp_path / "blinking_states.py").write_text(STATE)
    info = tmp_path / "blinking-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: blinking\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fieldstation.states]\nblinking = blinking_states:BlinkingState\n")
    monkeypatch.syspath_prepend(tmp_path)


async def test_an_installed_state_is_offered_on_the_drivers_it_names(installed_state):
    service = compose_worker.worker(WorkerConfig(driver=("simulated", "pico2_ice")))
    offered = {name: service._kinds(name, driver) for name, driver in service.drivers.items()}
    assert offered == {
        "simulated": ("pulsecount", "variance", "blinking"),
        "pico2_ice": ("pulsecount", "variance"),
    }


def test_firmware_files_reach_the_driver_that_flashes(tmp_path):
    config = WorkerConfig(
        driver=("pico2_ice",), firmware_default=tmp_path / "d.uf2", settings={"pico2_ice": {"settle_s": 0.5}}
    )
    (driver,) = compose_worker.build_drivers(config).values()
    assert driver.settings.firmware == {"default": tmp_path / "d.uf2"}
    assert driver.timing.settle_s == 0.5


@pytest.mark.parametrize(
    ("driver", "settings", "error", "named"),
    [
        ("simulated", {"bords": 2}, ConfigError, "did you mean 'boards'"),
        ("simulated", {"boards": -1}, ConfigError, "boards"),
        ("pico2_ice", {"chunk_bytes": 0}, ConfigError, "chunk_bytes"),
        ("telepathy", {}, UnknownPluginError, "telepathy"),
    ],
)
def test_a_wrong_driver_or_setting_is_named(driver, settings, error, named):
    with pytest.raises(error, match=named):
        compose_worker.build_drivers(WorkerConfig(driver=(driver,), settings={driver: settings}))
