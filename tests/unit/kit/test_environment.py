import os
import subprocess
import sys
from pathlib import Path

import pytest

from fieldstation.kit import environment
from fieldstation.kit.device import is_worker_node
from fieldstation.kit.environment import load_env, setting, user_name


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_loaded", set())
    for name in ("FS_TEST_A", "FS_TEST_B", "FIELDSTATION_WORKER_NODE"):
        monkeypatch.setenv(name, "remembered, so that it is taken back at the end")
        monkeypatch.delenv(name)


def test_the_nearest_env_file_is_loaded_and_what_is_set_already_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("FS_TEST_A=file\nFS_TEST_B=file\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.setenv("FS_TEST_A", "environment")
    assert setting("FS_TEST_A") == "environment"
    assert setting("FS_TEST_B") == "file"


def test_the_nearest_file_alone_is_read_whole_and_its_forms_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "project"
    below.mkdir()
    (tmp_path / ".env").write_text("FS_TEST_A=above\nFS_TEST_B=above\n")
    (below / ".env").write_text("# the lab\nexport FS_TEST_A='of the project'  # quoted\n")
    monkeypatch.chdir(below)
    assert setting("FS_TEST_A") == "of the project"
    assert setting("FS_TEST_B", "default") == "default"
    (below / ".env").unlink()
    (below / ".env").mkdir()  # a folder of that name is no file
    assert load_env() == tmp_path / ".env"
    assert setting("FS_TEST_B") == "above"


def test_an_empty_variable_counts_as_not_set_and_the_file_does_not_fill_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("FS_TEST_A=file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FS_TEST_A", "")
    assert setting("FS_TEST_A", "default") == "default"


TOOLS = """
import os, sys
import fieldstation.kit.aws_iot, fieldstation.kit.slack
from fieldstation.kit.mqtt_model import settings_from_environment
assert "MQTT_BROKER" not in os.environ, "importing reads nothing"
os.chdir(sys.argv[1])  # after the imports: the search starts where a tool is used
settings = settings_from_environment()
print(settings.host, settings.port, fieldstation.kit.slack.default_channel())
"""


def test_the_tools_take_the_documented_variables_from_the_file_of_the_folder_they_are_used_in(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MQTT_BROKER=roof.lab\nMQTT_PORT=1884\nDEFAULT_SLACK_CHANNEL='#lab'\n")
    (tmp_path / "below").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MQTT_", "DEFAULT_SLACK"))}
    done = subprocess.run(
        [sys.executable, "-c", TOOLS, tmp_path / "below"], cwd="/", env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout == "roof.lab 1884 #lab\n", done.stderr


def test_a_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FS_TEST_A=1\n")
    assert load_env(tmp_path) == tmp_path / ".env"
    del os.environ["FS_TEST_A"]
    load_env(tmp_path)
    assert "FS_TEST_A" not in os.environ


def test_without_a_file_the_default_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert setting("FS_TEST_A", "default") == "default"


@pytest.mark.parametrize(("told", "answer"), [("1", True), ("0", False), ("yes", True)])
def test_a_setting_says_whether_this_is_a_small_device(
    told: str, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDSTATION_WORKER_NODE", told)
    assert is_worker_node() is answer


@pytest.mark.parametrize(
    ("model", "kilobytes", "answer"),
    [
        (b"Raspberry Pi Zero 2 W Rev 1.0\0", 8_000_000, True),
        (b"Raspberry Pi 4 Model B\0", 4_000_000, False),
        (None, 430_000, True),
        (None, 16_000_000, False),
        (None, None, False),
    ],
)
def test_otherwise_model_and_memory_say_it(
    tmp_path: Path, model: bytes | None, kilobytes: int | None, answer: bool
) -> None:
    if model is not None:
        (tmp_path / "model").write_bytes(model)
    if kilobytes is not None:
        (tmp_path / "meminfo").write_text(f"MemTotal:       {kilobytes} kB\nMemFree: 1 kB\n")
    assert is_worker_node(model=tmp_path / "model", memory=tmp_path / "meminfo") is answer


def test_a_user_without_a_name_is_known_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert user_name() == "4000000"
