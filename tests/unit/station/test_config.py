from __future__ import annotations

import json
import stat

import pydantic
import pytest

from fieldstation.station.config import Config, ForeignConfig
from fieldstation.station.errors import StationConfigError


def load(data):
    return Config.load_from_string(json.dumps(data))


def test_a_config_file_of_todays_stations_loads_unchanged(today):
    config = load(today)
    assert config.backend.max_drain_time == 300
    assert config.updater.source_conflict_strategy == "reuse"


def test_the_template_s_spelling_of_the_conflict_setting_has_its_effect(today):
    today["updater"]["source_conflict_behaviour"] = "overwrite"
    assert load(today).updater.source_conflict_strategy == "overwrite"


def test_updater_and_backend_may_be_null_and_the_defaults_are_the_documented_ones(today):
    today["updater"] = today["backend"] = None
    assert load(today).all_uplinks() == {}
    today["backend"] = {
        "provider": "tenta",
        "mqtt_connection": {"host": "h", "port": 1, "client_id": "c", "username": "u", "password": "p"},
    }
    assert (load(today).backend.max_parallel_messages, load(today).backend.max_drain_time) == (50, 600)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("general.config_revision", -2),
        ("general.software_version", "1.2"),
        ("general.software_version", "v1.2.3"),
        ("general.system_identifier", ""),
        ("general.system_identifier", "x" * 513),
        ("logging_verbosity.file_archive", "LOUD"),
        ("updater.repository", "no-slash"),
        ("updater.repository", "a/b; rm -rf /"),
        ("updater.provider", "bitbucket"),
        ("updater.provider_host", "ab"),
        ("updater.provider_host", "github.com; reboot"),
        ("updater.access_token", "ab"),
        ("backend.provider", "Not A Name"),
        ("backend.mqtt_connection.host", ""),
        ("backend.mqtt_connection.port", 0),
        ("backend.mqtt_connection.port", 65536),
        ("backend.mqtt_connection.password", ""),
        ("backend.max_parallel_messages", 0),
        ("backend.max_parallel_messages", 10001),
        ("backend.max_drain_time", -1),
        ("backend.max_drain_time", 7201),
        ("dummy_procedure.seconds_between_datapoints", 0),
        ("system_checks.seconds_between_checks", 7201),
    ],
)
def test_a_value_out_of_bounds_is_refused_and_the_field_is_named(today, path, value):
    *parents, key = path.split(".")
    section = today
    for parent in parents:
        section = section[parent]
    section[key] = value
    with pytest.raises(StationConfigError, match=path.replace(".", r"\.")):
        load(today)


@pytest.mark.parametrize("path", ["general.config_revision", "general.software_version", "logging_verbosity"])
def test_a_required_field_that_is_missing_is_named(today, path):
    *parents, key = path.split(".")
    section = today
    for parent in parents:
        section = section[parent]
    del section[key]
    with pytest.raises(StationConfigError, match=key):
        load(today)


def test_thingsboard_and_tenta_need_a_user_and_a_password(today):
    del today["backend"]["mqtt_connection"]["password"]
    with pytest.raises(StationConfigError, match="password"):
        load(today)


def test_an_unknown_top_level_key_is_refused(today):
    today["backnd"] = {}
    with pytest.raises(StationConfigError, match="backnd"):
        load(today)


def test_a_config_that_is_no_json_is_refused_in_one_sentence():
    with pytest.raises(StationConfigError, match="not usable"):
        Config.load_from_string("{")


def test_a_config_of_ten_megabytes_is_not_even_parsed():
    with pytest.raises(StationConfigError, match="larger than"):
        Config.load_from_string(json.dumps({"general": "x" * 10_000_000}))


def test_users_add_a_section_for_each_procedure(today):
    class Thermometer(pydantic.BaseModel):
        pin: int

    class Mine(Config):
        thermometer: Thermometer | None = None

    today["thermometer"] = {"pin": 4}
    mine = Mine.load_from_string(json.dumps(today))
    assert isinstance(mine, Mine)
    assert mine.thermometer.pin == 4


def test_a_foreign_config_keeps_what_it_does_not_know():
    text = '{"general": {"config_revision": 7, "software_version": "9.0.0", "mood": "sunny"}, "laser": {"on": true}}'
    foreign = ForeignConfig.load_from_string(text)
    assert json.loads(foreign.model_dump_json()) == json.loads(text)


@pytest.mark.parametrize("version", ["1.0", "1.0.0-gamma.1", "../../etc", "1.0.0\n"])
def test_a_foreign_config_with_a_wrong_version_string_is_refused(version):
    with pytest.raises(StationConfigError, match="software_version"):
        ForeignConfig.load_from_string(json.dumps({"general": {"config_revision": 7, "software_version": version}}))


def test_a_dumped_config_is_loaded_again_and_only_its_owner_reads_it(today, home):
    config = load(today)
    config.dump()
    assert Config.load() == config
    file = home / "config" / "config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith('{\n    "general"')


def test_a_foreign_config_is_dumped_into_the_folder_of_its_version(home):
    text = '{"general": {"config_revision": 7, "software_version": "9.0.0"}, "laser": {}}'
    ForeignConfig.load_from_string(text).dump()
    assert json.loads((home.parent / "9.0.0" / "config" / "config.json").read_text()) == json.loads(text)


def test_a_config_becomes_a_foreign_one_and_back(today):
    config = load(today)
    assert Config.load_from_string(config.to_foreign_config().model_dump_json()) == config


def test_the_template_is_read_from_the_project(today, home):
    (home / "config" / "config.template.json").write_text(json.dumps(today))
    assert Config.load_template() == load(today)


def test_several_uplinks_each_have_their_name(today):
    today["uplinks"] = {"panel": {"provider": "nats", "nats_connection": {"servers": ["nats://127.0.0.1:4222"]}}}
    assert list(load(today).all_uplinks()) == ["backend", "panel"]
