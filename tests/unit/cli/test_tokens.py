import json

import pytest
from click.testing import CliRunner

from fieldstation.cli.tokens import UnknownUserError, tokens
from fieldstation.core.errors import FieldstationError
from fieldstation.core.security import Principal, Role, TokenFile, UserNameError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.json"


def run(*words, env=None):
    result = CliRunner().invoke(tokens, [str(word) for word in words], env=env)
    if isinstance(result.exception, FieldstationError):
        raise result.exception
    return result


def test_a_token_is_printed_once_alone_on_stdout(path):
    result = run("create", "ann", "--role", "operator", "--file", path)
    token = result.stdout.strip()
    assert TokenFile(path).lookup(token) == Principal("ann", Role.OPERATOR)
    assert "printed once" in result.stderr
    assert token not in result.stderr + path.read_text() + run("list", "--file", path).output


def test_listing_and_revoking(path):
    for user, role in [("bob", "admin"), ("ann", "viewer"), ("ann", "user")]:
        run("create", user, "--role", role, "--file", path)
    rows = json.loads(run("list", "--json", "--file", path).stdout)
    assert rows == [
        {"user": "ann", "role": "user"},
        {"user": "ann", "role": "viewer"},
        {"user": "bob", "role": "admin"},
    ]
    assert run("revoke", "ann", "--file", path).stdout == "Revoked 2 tokens of ann.\n"
    assert run("list", "--file", path).stdout.split() == ["bob", "admin"]
    with pytest.raises(UnknownUserError, match="'ann' has no token there"):
        run("revoke", "ann", "--file", path)


def test_the_file_may_come_from_the_environment(path):
    run("create", "ann", env={"FIELDSTATION_TOKENS": str(path)})
    assert [principal.user for principal in TokenFile(path).users()] == ["ann"]


def test_bad_input_changes_nothing(path):
    assert "'king' is not one of" in run("create", "ann", "--role", "king", "--file", path).stderr
    with pytest.raises(UserNameError, match="'a:b' cannot be a user's name"):
        run("create", "a:b", "--file", path)
    assert not path.exists()


def test_no_option_takes_a_token_from_the_command_line():
    for command in tokens.commands.values():
        assert not [name for option in command.params for name in option.opts if name in ("--token", "--password")]


def test_tokens_in_the_controls_database(tmp_path):
    address = f"sqlite:///{tmp_path / 'fleet.db'}"
    token = run("create", "ann", "--role", "operator", "--database", address).stdout.strip()
    from fieldstation.fleet.store import Store

    store = Store(address)
    store.open()
    assert store.lookup(token) == Principal("ann", Role.OPERATOR)
    store.close()
    assert json.loads(run("list", "--json", "--database", address).stdout) == [{"user": "ann", "role": "operator"}]
    assert "1 token of ann" in run("revoke", "ann", "--database", address).stdout


def test_without_a_place_it_is_the_database_that_control_takes(tmp_path):
    env = {"XDG_STATE_HOME": str(tmp_path), "FIELDSTATION_TOKENS": ""}
    run("create", "ann", env=env)
    assert run("list", env=env).stdout.split() == ["ann", "user"]
    assert list(tmp_path.rglob("*.db"))


def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path):
    with pytest.raises(FieldstationError):
        run("list", "--database", "mysql://somewhere/x")
    (tmp_path / "file").touch()
    with pytest.raises(FieldstationError):
        run("list", "--database", f"sqlite:///{tmp_path / 'file' / 'fleet.db'}")
