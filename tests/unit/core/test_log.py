import asyncio
import json
import logging

import pytest

from fieldstation.core import log
from fieldstation.core.errors import ConfigError

TOKEN = "fst_abcdefghijklmnop"


@pytest.fixture(autouse=True)
def clean_root():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    log._chosen = log._Choice()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("GET http://ann:hunter2@host:8080/x", "hunter2"),
        ("postgresql://u:p@ss@db/x", "p@ss"),
        ("http://:onlypassword@host", "onlypassword"),
        ("Authorization: Bearer abc.def-ghi_jkl", "abc.def-ghi_jkl"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        (f"who has {TOKEN}?", TOKEN),
        ("lease fsl_0123456789abcdef", "fsl_0123456789abcdef"),
        ("slack xoxb-1234567890-abc", "1234567890"),
        ("?access_token=s3cr3t&x=1", "s3cr3t"),
        ("PASSWORD=s3cr3t", "s3cr3t"),
        ('{"client_secret": "s3cr3t"}', "s3cr3t"),
        ("{'api_key': 's3cr3t'}", "s3cr3t"),
    ],
)
def test_secrets_are_masked(text, secret):
    assert secret not in log.mask(text)
    assert "***" in log.mask(text)


@pytest.mark.parametrize("text", ["http://host:8080/devices", "a user@example.org", "12:30 @ noon", "tokens: 3"])
def test_what_is_no_secret_stays(text):
    assert log.mask(text) == text


def test_masking_keeps_the_user_and_the_host():
    assert log.mask("http://ann:hunter2@host:8080/x") == "http://ann:***@host:8080/x"


def text_of(capsys):
    return capsys.readouterr().err


def test_a_line_carries_time_level_logger_and_context(capsys):
    log.setup()
    with log.context(station="roof"), log.context(device="A1"):
        logging.getLogger("fieldstation.fleet.worker").warning("gone")
    line = text_of(capsys)
    assert line.endswith("Z WARNING fleet.worker [station=roof device=A1] gone\n")
    assert log.current_context() == {}


def test_a_field_may_change_while_its_block_lasts(capsys):
    log.setup()
    lease = None
    with log.context(lease=lambda: lease):
        logging.getLogger("x").warning("free")
        lease = "l1"
        logging.getLogger("x").warning("held")
    free, held = capsys.readouterr().err.splitlines()
    assert "lease" not in free
    assert "[lease=l1] held" in held


def test_context_belongs_to_the_task_that_set_it(capsys):
    log.setup()

    async def work(name):
        with log.context(task=name):
            await asyncio.sleep(0)
            logging.getLogger("x").info("at work")

    async def both():
        async with asyncio.TaskGroup() as group:
            group.create_task(work("a"))
            group.create_task(work("b"))

    asyncio.run(both())
    lines = text_of(capsys).splitlines()
    assert [line.split("[")[1] for line in lines if "at work" in line] == ["task=a] at work", "task=b] at work"]


def test_fields_of_one_line_join_the_context(capsys):
    log.setup(as_json=True)
    with log.context(device="A1"):
        logging.getLogger("x").info("m", extra={"fields": {"try": 2, "message": "forged"}})
    entry = json.loads(text_of(capsys))
    assert entry["device"] == "A1"
    assert entry["try"] == "2"
    assert entry["message"] == "m"


def test_json_lines_are_masked_and_hold_the_exception(capsys):
    log.setup(as_json=True)
    try:
        raise ValueError(f"bad {TOKEN}")
    except ValueError:
        logging.getLogger("x").exception("failed with %s", TOKEN)
    text = text_of(capsys)
    entry = json.loads(text)
    assert TOKEN not in text
    assert entry["level"] == "ERROR"
    assert "ValueError: bad fs***" in entry["exception"]


def test_a_message_cannot_forge_a_line_of_its_own(capsys):
    log.setup()
    logging.getLogger("x").info("name %s", "ann\n2026-01-01T00:00:00.000Z INFO root all is well\r")
    assert [line.startswith("2") for line in text_of(capsys).splitlines()] == [True, False]


def test_a_second_setup_replaces_the_first(capsys, tmp_path):
    log.setup(file=tmp_path / "logs" / "a.log")
    log.setup("DEBUG", file=tmp_path / "logs" / "b.log")
    logging.getLogger("x").debug("once")
    assert text_of(capsys).count("once") == 1
    assert (tmp_path / "logs" / "a.log").read_text() == ""
    assert "once" in (tmp_path / "logs" / "b.log").read_text()


def test_talkative_libraries_are_heard_when_they_warn_or_at_debug(capsys):
    for level, heard in [("INFO", ["warned"]), ("DEBUG", ["told", "warned"])]:
        log.setup(level)
        logging.getLogger("alembic.runtime").info("told")
        logging.getLogger("alembic.runtime").warning("warned")
        assert [line.split()[-1] for line in text_of(capsys).splitlines()] == heard


def test_wrong_settings_are_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="'LOUD' is not a level"):
        log.setup("LOUD")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"log file .* cannot be written"):
        log.setup(file=tmp_path / "file" / "x.log")


def test_a_later_setup_leaves_what_it_does_not_name(capsys, tmp_path):
    log.setup("DEBUG", file=tmp_path / "a.log", as_json=True)
    log.setup()
    log.setup("WARNING")
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert json.loads(text_of(capsys))["message"] == "loud"
    assert json.loads((tmp_path / "a.log").read_text())["message"] == "loud"
