import re
import socket
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


DOCUMENTED = {
    # The documented name without its prefix: a value, and what it sets.
    "WORKER_NAME": ("bench", "name", "bench"),
    "CONTROL_SERVER": ("http://control:8080", "control", ("http://control:8080",)),
    "WORKER_URL": ("http://bench:9", "url", "http://bench:9"),
    "SERVER_PORT": ("9000", "port", 9000),
    "VIRTUAL_IP": ("10.0.0.5", "virtual_ip", "10.0.0.5"),
    "VIRTUAL_PORT": ("9002", "virtual_port", 9002),
    "DEFAULT": ("/fw/d.uf2", "firmware_default", Path("/fw/d.uf2")),
    "PULSE_COUNT": ("/fw/p.uf2", "firmware_pulsecount", Path("/fw/p.uf2")),
    "VARIANCE": ("/fw/v.uf2", "firmware_variance", Path("/fw/v.uf2")),
    "WORKER_LOGS": ("/var/log/w.log", "log_file", Path("/var/log/w.log")),
}


@pytest.mark.parametrize("prefix", ["ICEFARM_", "USBIPICE_"])
@pytest.mark.parametrize("variable", DOCUMENTED)
def test_every_documented_variable_is_read_from_the_environment_an_ini_file_and_a_toml_file(tmp_path, prefix, variable):
    text, field, value = DOCUMENTED[variable]
    section = "Firmware" if field.startswith("firmware") else "Connection"
    assert getattr(worker_config(environ={prefix + variable: text}), field) == value
    (tmp_path / "w.ini").write_text(f"[{section}]\n{prefix}{variable} = {text}\n")
    (tmp_path / "w.toml").write_text(f'[{section}]\n{prefix}{variable} = "{text}"\n')
    for name in ("w.ini", "w.toml"):
        found = worker_config(environ={f"{prefix}WORKER_CONFIG": str(tmp_path / name)})
        assert getattr(found, field) == value
        # The environment wins, also under the other of the two names.
        other = {"ICEFARM_": "USBIPICE_", "USBIPICE_": "ICEFARM_"}[prefix]
        assert getattr(worker_config(file=tmp_path / name, environ={other + variable: text[:-1] + "1"}), field) != value


def test_the_ini_file_that_the_documentation_shows_is_read_whole(tmp_path):
    page = (Path(__file__).parents[3] / "docs/how-to/run-a-worker.md").read_text()
    path = tmp_path / "worker.ini"
    path.write_text(re.search(r"^```ini\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1])
    config = worker_config(file=path, environ={})
    assert (config.name, config.url) == ("bench-1", "http://bench-1.lab:8081")
    assert config.firmware_variance == Path("firmware/variance.uf2")


def test_documented_defaults_hold():
    config = worker_config(environ={})
    assert (config.port, config.name) == (8081, socket.gethostname())
    assert worker_config(environ={"ICEFARM_VIRTUAL_IP": "10.0.0.5"}).advertised(8081, "http") == "http://10.0.0.5:8081"
    assert worker_config(environ={}).advertised(8081, "http") == "http://127.0.0.1:8081"


def test_a_password_of_the_database_does_not_belong_into_a_workers_file(tmp_path):
    # Workers of today's system need the database; ours ask control, and a forgotten line should not be read in vain.
    path = tmp_path / "config.ini"
    path.write_text("[Connection]\nICEFARM_DATABASE = host=db password=secret\n")
    with pytest.raises(ConfigError, match="ICEFARM_DATABASE") as caught:
        worker_config(file=path, environ={})
    assert "secret" not in str(caught.value)


def test_care_is_configured_and_its_command_is_checked(tmp_path):
    path = tmp_path / "worker.toml"
    path.write_text(
        '[fleet.worker.care]\ncheck_s = 0\npower_cycle = ["uhubctl", "-l", "{location}"]\n'
        '[fleet.worker.care.places.S]\nlocation = "1-4"\nport = 2\n'
    )
    care = worker_config(file=path, environ={}).care
    assert (care.check_s, care.power_cycle, care.places["S"].port) == (0, ("uhubctl", "-l", "{location}"), "2")


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
        ('[fleet.worker.care]\npower_cycle = ["x", "{hub}"]\n', "there is no {hub}"),
        ("[fleet.worker.care]\nretries = -1\n", "retries"),
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
