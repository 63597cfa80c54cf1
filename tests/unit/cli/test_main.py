import logging

import pytest
from click.testing import CliRunner

from fieldstation.cli.lazy import LazyGroup
from fieldstation.cli.main import COMMANDS, cli, main
from fieldstation.core import log
from fieldstation.core.errors import ConfigError


def test_help_lists_the_commands_in_the_table():
    text = CliRunner().invoke(cli, ["--help"]).output
    for name, (_, line) in COMMANDS.items():
        assert name in text
        assert line.split(".")[0] in text


def test_every_command_of_the_table_can_be_imported():
    for name in COMMANDS:
        assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0, name


def test_a_group_without_commands_still_helps():
    assert CliRunner().invoke(LazyGroup("empty", table={}), ["--help"]).exit_code == 0


def test_an_unknown_command_is_refused():
    result = CliRunner().invoke(cli, ["flet"])
    assert result.exit_code == 2
    assert "No such command 'flet'" in result.output


def test_an_expected_failure_is_one_sentence_and_exit_code_1(monkeypatch, capsys, tmp_path):
    def fail(**kwargs):
        raise ConfigError(key="'port'", source="site.toml", problem="it is a secret=hunter2")

    monkeypatch.setattr("fieldstation.cli.main.cli", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "fieldstation: The setting 'port' in site.toml is wrong: it is a secret=***\n"


@pytest.fixture
def clean_root():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    log._chosen = log._Choice()


def test_logging_is_set_from_options_or_the_environment(clean_root, tmp_path):
    file = tmp_path / "log.txt"
    CliRunner().invoke(cli, ["--log-level", "DEBUG", "--log-json", "plugins"], env={"FIELDSTATION_LOG_FILE": str(file)})
    assert clean_root.level == logging.DEBUG
    logging.getLogger("x").debug("hello")
    assert '"message": "hello"' in file.read_text()
