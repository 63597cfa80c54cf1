"""States and drivers of other packages take part when they are installed, by entry point."""

import pytest

from fieldstation.core.errors import ConfigError
from fieldstation.core.plugins import UnknownPluginError
from fieldstation.fleet import compose_worker
from fieldstation.fleet.worker_config import WorkerConfig, worker_config

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


async def test_under_another_server_a_worker_that_cannot_start_says_why_in_one_sentence(tmp_path, monkeypatch):
    for name, value in {"HOST": "0.0.0.0", "DIR": str(tmp_path), "DRIVER": "simulated"}.items():
        monkeypatch.setenv(f"FIELDSTATION_FLEET_WORKER_{name}", value)
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    await compose_worker.UnderAsgi(compose_worker.worker(worker_config()))({"type": "lifespan"}, receive, send)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith("Refusing to listen on 0.0.0.0")


def test_the_settings_of_care_reach_the_states():
    config = WorkerConfig.model_validate(
        {
            "care": {
                "check_s": 5,
                "retries": 7,
                "power_cycle": ["cut", "{port}"],
                "places": {"S": {"location": "1-1", "port": 3}},
            }
        }
    )
    care = compose_worker.care_settings(config)
    assert (care.check_s, care.budgets.retries) == (5, 7)
    assert care.power is not None
    assert care.power.can("S", None)
    assert not care.power.can("T", None)
    assert compose_worker.care_settings(WorkerConfig()).power is None
