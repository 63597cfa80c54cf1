import os
from pathlib import Path

import pytest

from fieldstation.kit import environment
from fieldstation.kit.device import is_worker_node
from fieldstation.kit.environment import load_env, setting


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
