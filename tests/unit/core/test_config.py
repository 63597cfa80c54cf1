from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from fieldstation.core import config
from fieldstation.core.errors import ConfigError


class Board(BaseModel):
    model_config = ConfigDict(extra="forbid")
    driver: str = "simulated"
    pause_s: float = Field(0.0, ge=0)


class Control(BaseModel):
    model_config = ConfigDict(extra="forbid")
    host: str = "127.0.0.1"
    port: int = 8080
    allow_host: list[str] = []
    mode: Literal["plain", "rich"] = "plain"
    board: Board | None = None
    boards: dict[str, Board] = {}
    spare: list[Board] = []


@dataclass(frozen=True, slots=True)
class Light:
    path: Path
    retries: int = 3
    pause_s: float | None = None
    wait: bool = True
    names: tuple[str, ...] = field(default=())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('[fleet.control]\nport = 1\nhost = "from file"\n')
    return path


def load(cls=Control, environ=None, **kwargs):
    return config.load(cls, environ=environ or {}, **kwargs)


def test_later_sources_win_file_then_environment_then_overrides(file):
    def port(environ, overrides):
        return load(file=file, table="fleet.control", environ=environ, overrides=overrides).port

    assert port({}, {}) == 1
    assert port({"FIELDSTATION_FLEET_CONTROL_PORT": "2"}, {}) == 2
    assert port({"FIELDSTATION_FLEET_CONTROL_PORT": "2"}, {"port": 3}) == 3


def test_options_that_were_not_given_do_not_hide_the_file(file):
    assert load(file=file, table="fleet.control", overrides={"port": None, "allow_host": ()}).port == 1


def test_an_absent_table_gives_the_defaults(file):
    assert load(file=file, table="station.roof") == Control()


def test_documented_variables_are_read_after_our_own():
    aliases = {"port": ["USBIPICE_PORT", "ICEFARM_PORT"]}
    assert load(aliases=aliases, environ={"ICEFARM_PORT": "7", "USBIPICE_PORT": "6"}).port == 6
    assert load(aliases=aliases, environ={"ICEFARM_PORT": "7", "FIELDSTATION_PORT": "5"}).port == 5


def test_an_empty_variable_counts_as_absent():
    assert load(environ={"FIELDSTATION_PORT": ""}).port == 8080


def test_a_list_in_the_environment_is_written_with_commas():
    assert load(environ={"FIELDSTATION_ALLOW_HOST": "a.example, b.example"}).allow_host == ["a.example", "b.example"]


def test_a_dataclass_gets_its_types_from_the_environment():
    environ = {
        "FIELDSTATION_PATH": "/x",
        "FIELDSTATION_RETRIES": "5",
        "FIELDSTATION_PAUSE_S": "0.5",
        "FIELDSTATION_WAIT": "no",
        "FIELDSTATION_NAMES": "a,b",
    }
    got = load(Light, environ=environ)
    assert (got.path, got.retries, got.pause_s, got.wait, list(got.names)) == (Path("/x"), 5, 0.5, False, ["a", "b"])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"prot": 1}, "'prot' .* did you mean 'port'?"),
        ({"zzzzzz": 1}, "'zzzzzz' .* known are allow_host, board"),
        ({"board": {"drver": "x"}}, "'board.drver' .* did you mean 'driver'?"),
        ({"boards": {"a": {"pause": 1}}}, "'boards.a.pause' .* did you mean 'pause_s'?"),
        ({"spare": [{}, {"drivr": 1}]}, "'spare.1.drivr' .* did you mean 'driver'?"),
        ({"port": "many"}, "'port' in the configuration is wrong: input should be a valid integer"),
        ({"boards": {"a": {"pause_s": -1}}}, r"'boards.a.pause_s' .* greater than or equal to 0"),
        ({"mode": "grand"}, "'mode' .* 'plain' or 'rich'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(values, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load(values=values)


def test_unknown_keys_are_left_to_a_class_that_wants_them():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        known: int = 0

    assert load(Open, values={"anything": 1}).anything == 1


def test_a_wrong_setting_names_the_source_it_came_from(file):
    with pytest.raises(ConfigError, match="environment variable FIELDSTATION_PORT"):
        load(environ={"FIELDSTATION_PORT": "x"})
    with pytest.raises(ConfigError, match="the command line"):
        load(overrides={"port": "x"})
    file.write_text("[fleet.control]\nport = 'x'\n")
    with pytest.raises(ConfigError, match=r"in \[fleet.control\] of .*site.toml"):
        load(file=file, table="fleet.control")


def test_a_missing_value_of_a_dataclass_is_one_sentence():
    with pytest.raises(ConfigError, match=r"^The configuration is wrong: .*'path'"):
        load(Light)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("port = = 1", "line 1"), ("\udcff", "not valid TOML"), (None, "cannot be read: No such file")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, text, complaint):
    path = tmp_path / "site.toml"
    if text is not None:
        path.write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=f"site.toml.*{complaint}"):
        load(file=path)


def test_a_value_where_a_table_belongs_is_refused(file):
    file.write_text("fleet = 3")
    with pytest.raises(ConfigError, match=r"\[fleet.control\] must be a table"):
        load(file=file, table="fleet.control")
