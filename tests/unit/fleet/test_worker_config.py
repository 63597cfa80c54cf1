from pathlib import Path

import pytest

from fieldstation.core.errors import ConfigError
from fieldstation.fleet.worker_config import worker_config

INI = """
[Connection]
ICEFARM_WORKER_NAME = bench
USBIPICE_CONTROL_SERVER = "http://control:8080"
ICEFARM_VIRTUAL_IP = 10.0.0.5
ICEFARM_VIRTUAL_PORT = 9000

[Firmware]
ICEFARM_DEFAULT = /fw/default.uf2
ICEFARM_PULSE_COUNT = /fw/pulse.uf2
"""


def test_the_documented_file_is_read(tmp_path):
    path = tmp_path / "config.ini"
    path.write_text(INI)
    config = worker_config(environ={"ICEFARM_WORKER_CONFIG": str(path)})
    assert (config.name, config.control) == ("bench", ("http://control:8080",))
    assert config.advertised(8081, "http") == "http://10.0.0.5:9000"
    assert config.firmware_pulsecount == Path("/fw/pulse.uf2")


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path):
    path = tmp_path / "config.ini"
    path.write_text(INI)
    environ = {"USBIPICE_WORKER_NAME": "old", "ICEFARM_WORKER_NAME": "newer", "USBIPICE_SERVER_PORT": "9"}
    config = worker_config(file=path, environ=environ)
    assert (config.name, config.port) == ("newer", 9)
    assert worker_config(file=path, environ=environ, overrides={"name": "said"}).name == "said"


def test_our_file_names_drivers_and_their_settings(tmp_path):
    path = tmp_path / "worker.toml"
    path.write_text(
        '[fleet.worker]\ndriver = "a, b"\ncontrol = "http://x/,http://y"\n[fleet.worker.settings.a]\nn = 1\n'
    )
    config = worker_config(file=path, environ={})
    assert config.driver == ("a", "b")
    assert config.control == ("http://x", "http://y")
    assert config.settings == {"a": {"n": 1}}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[fleet.worker]\nnmae = 1\n", "did you mean 'name'"),
        ("[fleet.worker]\nport = 99999\n", "port"),
        ('[fleet.worker]\nurl = "http://user:secret@host"\n', "url"),
        ("[Connection]\nICEFARM_WORKER_NMAE = x\n", "ICEFARM_WORKER_NMAE"),
        ("no file of settings at all", "not valid TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, named):
    path = tmp_path / "worker.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        worker_config(file=path, environ={})


def test_a_token_is_read_from_its_file_and_not_shown(tmp_path):
    path = tmp_path / "token"
    path.write_text("fst_secret\n")
    config = worker_config(environ={"FIELDSTATION_FLEET_WORKER_TOKEN_FILE": str(path)})
    assert config.control_token() == "fst_secret"
    told = worker_config(environ={"FIELDSTATION_FLEET_WORKER_TOKEN": "fst_other"})
    assert told.control_token() == "fst_other"
    assert "fst_other" not in repr(told)
