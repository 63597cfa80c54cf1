import json

import pytest

from fieldstation.core.errors import ConfigError
from fieldstation.stream.config import ServerConfig, load_hp_io, load_server, parse_hp_io

# The documented file with every field it has.
DOCUMENTED = {
    "init_from_default": False,
    "default_hp_io_config_file": "hp_io_config_simulate.json",
    "unix_domain_socket": "unix:///tmp/daq_data.sock",
    "max_concurrent_rpcs": 100,
    "max_read_queue_size": 50,
    "min_hp_io_update_interval_seconds": 0.001,
    "max_client_update_interval_seconds": 60,
    "max_reader_enqueue_timeouts": 2,
    "max_reader_dequeue_timeouts": 3,
    "reader_timeout": 5,
    "shutdown_grace_period": 5,
    "hp_io_stop_timeout": 5.0,
    "valid_data_products": ["img8", "img16", "ph256", "ph1024"],
    "read_status_pipe_name": "read_status_2",
    "acquisition_methods": {
        "filesystem_poll": {"enabled": False},
        "filesystem_pipe": {"enabled": False},
        "uds": {
            "enabled": True,
            "data_products": ["img8", "img16", "ph256", "ph1024"],
            "socket_path_template": "/tmp/hashpipe_grpc.dp_{dp_name}.sock",
            "read_timeout": 600.0,
        },
    },
    "simulate_daq_cfg": {
        "simulation_mode": "uds",
        "sim_module_ids": [224],
        "movie_type": "img16",
        "ph_type": "ph256",
        "source_data": {"real_module_id": 1, "movie_pff_path": "a.pff", "ph_pff_path": "b.pff"},
        "filesystem_cfg": {
            "sim_data_dir": "d",
            "sim_run_dir_template": "module_{module_id}/obs_SIMULATE",
            "daq_active_file": "module_{module_id}.daq-active",
        },
        "strategies": {"filesystem_poll": {"frames_per_pff": 100, "frame_limit": -1}, "rpc": {}},
    },
}


def test_the_documented_server_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "daq_data_server_config.json"
    path.write_text(json.dumps(DOCUMENTED))
    config = load_server(path, environ={})
    assert config.acquisition_methods.uds.enabled
    assert not config.acquisition_methods.filesystem_poll.enabled
    assert config.simulate_daq_cfg.sim_module_ids == [224]


def test_toml_environment_and_command_line_in_this_order(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('[stream]\nport = 1\nname = "file"\nhost = "localhost"\n')
    config = load_server(path, {"host": "127.0.0.2"}, environ={"FIELDSTATION_STREAM_NAME": "env"})
    assert (config.port, config.name, config.host) == (1, "env", "127.0.0.2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prot": 5}, "'prot'.*did you mean 'port'"),
        ({"port": "many"}, "'port'"),
        ({"port": 70000}, "'port'"),
        ({"max_concurrent_rpcs": 0}, "max_concurrent_rpcs"),
        ({"valid_data_products": ["img32"]}, "valid_data_products"),
        ({"acquisition_methods": {"uds": {"socket_path_template": "/tmp/x"}}}, "dp_name"),
        ({"acquisition_methods": {"shm": {}}}, "shm"),
        ({"simulate_daq_cfg": {"simulation_mode": "magic"}}, "simulation_mode"),
        ({"simulate_daq_cfg": {"sim_module_ids": []}}, "sim_module_ids"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, words):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(DOCUMENTED | change))
    with pytest.raises(ConfigError, match=words):
        load_server(path, environ={})


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"c\.json"):
        load_server(path, environ={})
    with pytest.raises(ConfigError, match=r"c\.json"):
        load_hp_io(path)
    with pytest.raises(ConfigError, match=r"missing\.json"):
        load_hp_io(tmp_path / "missing.json")


def test_the_documented_hp_io_file_is_read(tmp_path):
    path = tmp_path / "hp_io_config.json"
    path.write_text(
        '{"data_dir": "/mnt/panoseti", "update_interval_seconds": 0.1, "force": true, "simulate_daq": false,'
        ' "module_ids": [], "comments": "text"}'
    )
    config = load_hp_io(path)
    assert (config.data_dir, config.update_interval_seconds, config.force) == ("/mnt/panoseti", 0.1, True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data_dirs": "/x"}, "did you mean 'data_dir'"),
        ({"update_interval_seconds": "soon"}, "update_interval_seconds"),
        ({"module_ids": "all"}, "module_ids"),
        ({"force": "perhaps"}, "force"),
    ],
)
def test_a_wrong_hp_io_field_is_named(values, words):
    with pytest.raises(ConfigError, match=words):
        parse_hp_io(values)


def test_every_setting_says_what_it_does():
    def described(model):
        for name, field in model.model_fields.items():
            assert field.description, name
            if hasattr(field.annotation, "model_fields"):
                described(field.annotation)

    described(ServerConfig)
