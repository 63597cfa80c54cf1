import getpass
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldstation.kit import logs
from fieldstation.kit.logs import LogFileHandler, get_logger


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = set(logging.root.manager.loggerDict)
    yield tmp_path
    for name in set(logging.root.manager.loggerDict) - before:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        del logging.root.manager.loggerDict[name]


def files(home: Path) -> list[Path]:
    return sorted((home / "Logs").iterdir()) if (home / "Logs").exists() else []


def test_the_file_has_the_documented_name_and_lines(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = get_logger("titrator")
    log.warning("pump %d slow", 2)
    log.debug("déjà vu")
    [path] = files(home)
    prefix = re.escape(f"{socket.gethostname()}_{getpass.getuser()}_titrator_")
    assert re.fullmatch(prefix + r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.log", path.name)
    first, second = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - \[WARNING\] - pump 2 slow", first)
    assert second.endswith(" - [DEBUG] - déjà vu")


def test_the_message_alone_goes_to_stdout_when_nobody_else_prints_it(home: Path) -> None:
    script = "from fieldstation.kit import get_logger\nlog = get_logger('x')\nlog.info('hello')\n"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"HOME": str(home)}, check=True
    )
    assert (result.stdout, result.stderr) == ("hello\n", "")
    script = "import logging\nlogging.basicConfig()\n" + script
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"HOME": str(home)}, check=True
    )
    assert (result.stdout, result.stderr) == ("", "INFO:x:hello\n")


def test_the_same_name_twice_is_the_same_logger_and_every_line_once(home: Path) -> None:
    log = get_logger("a")
    assert get_logger("a") is log is logging.getLogger("a")
    log.info("once")
    [path] = files(home)
    assert path.read_text().count("once") == 1


def test_importing_makes_no_file_and_prints_nothing(home: Path) -> None:
    script = "import fieldstation, fieldstation.kit\nfrom fieldstation.kit import *\n"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"HOME": str(home)}, check=True
    )
    assert (result.stdout, result.stderr) == ("", "")
    assert files(home) == []


@pytest.mark.parametrize("name", ["a/b", "../../x", "a\0b", "a\nb", "C:\\x"])
def test_a_logger_name_stays_inside_the_folder(home: Path, name: str) -> None:
    get_logger(name).info("x")
    [path] = files(home)
    assert path.parent == home / "Logs"


def test_two_processes_in_one_second_have_a_file_each(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.time, "time", lambda: 1_700_000_000.5)
    handlers = [LogFileHandler(console=False, max_bytes=0, backups=0, background=False) for _ in range(2)]
    for handler in handlers:
        handler.open(home / "Logs", "x")
        handler.close()
    assert len(files(home)) == 2
    assert all(re.search(r"_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.log$", path.name) for path in files(home))


def test_a_traceback_follows_in_plain_lines(home: Path) -> None:
    log = get_logger("t")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("it failed")
    lines = files(home)[0].read_text().splitlines()
    assert lines[0].endswith("[ERROR] - it failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: bad"


def test_a_file_that_is_full_is_rotated_and_few_are_kept(home: Path) -> None:
    log = get_logger("r", max_bytes=300, backups=2)
    for number in range(40):
        log.info("line %02d", number)
    found = files(home)
    assert len(found) == 3
    assert all(path.stat().st_size <= 300 for path in found)
    assert "line 39" in found[0].read_text()
    assert found[1].name == found[0].name + ".1"


def test_old_files_of_the_same_logger_are_deleted_on_request(home: Path) -> None:
    import os

    folder = home / "Logs"
    folder.mkdir()
    old = folder / logs.file_name("k", 1_600_000_000)
    other = folder / "something else.log"
    for path in (old, other):
        path.touch()
        os.utime(path, (1, 1))
    get_logger("k", keep_days=7)
    assert not old.exists()
    assert other.exists()


def test_a_home_that_cannot_be_written_is_said_once_and_logging_works(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "Logs").write_text("a file, not a folder")
    log = get_logger("n")
    log.info("still works")
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_a_full_disk_is_said_once_and_logging_works(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    log = get_logger("f")
    [handler] = [h for h in log.handlers if isinstance(h, LogFileHandler)]
    os.close(handler._descriptor)
    handler._descriptor = os.open("/dev/full", os.O_WRONLY)
    for _ in range(3):
        log.info("x")
    assert capsys.readouterr().err.count("No space left") == 1


def test_json_lines_on_request(home: Path) -> None:
    get_logger("j", as_json=True).info("hello %s", "x")
    entry = json.loads(files(home)[0].read_text())
    assert (entry["level"], entry["message"]) == ("INFO", "hello x")


def test_background_lines_are_all_there_after_flush(home: Path) -> None:
    log = get_logger("b", background=True, console=False)
    for number in range(2_000):
        log.info("line %d", number)
    for handler in log.handlers:
        handler.flush()
    assert files(home)[0].read_text().count("\n") == 2_000


def test_a_full_background_buffer_drops_and_says_how_many(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import queue
    import threading

    log = get_logger("d", background=True, console=False)
    [handler] = [h for h in log.handlers if isinstance(h, LogFileHandler)]
    handler._waiting = queue.Queue(2)
    stalled = threading.Event()
    monkeypatch.setattr(handler, "_write", lambda line, write=handler._write: (stalled.wait(), write(line)))
    for number in range(10):
        log.info("line %d", number)
    stalled.set()
    handler.flush()
    log.info("after")
    handler.flush()
    text = files(home)[0].read_text()
    kept = len(re.findall(r"line \d", text))
    dropped = [int(n) for n in re.findall(r"(\d+) lines were dropped", text)]
    assert kept + sum(dropped) == 10
    assert dropped
