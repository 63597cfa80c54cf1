"""Approvals in a running control: CLI, HTTP API and Slack at once; killed and started again."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldstation.core.errors import FieldstationError
from fieldstation.flow.client import ApprovalsClient
from fieldstation.flow.errors import (
    ApprovalClosedError,
    ApprovalError,
    ApprovalsUnreachableError,
    ApprovalUnknownError,
    BadRequestError,
    ControlUnknownError,
    DigestMismatchError,
    NotAnApproverError,
)
from fieldstation.flow.model import State, command_action
from fieldstation.testing import ServerProcess, free_port, wait_for
from fieldstation.testing.slack import FakeSlack

pytestmark = pytest.mark.timeout(90)

ACTION = command_action("ls -la /data", pool="pi")


class Control:
    """A control server on one port and one database, that can be killed and started again."""

    def __init__(self, folder: Path, env: dict[str, str], *words: str) -> None:
        self.port = free_port()
        self._command = ["fieldstation", "fleet", "control", "--port", str(self.port), *words]
        self._command += ["--database", f"sqlite:///{folder}/control.db"]
        self._env = env
        self.server: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = ServerProcess(self._command, env=self._env)
        self.server.wait_ready(40)

    def kill(self) -> None:
        if self.server is not None:
            self.server.kill()


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with FakeSlack(("#lab",)) as fake:
        yield fake


@pytest.fixture
def control(tmp_path: Path, slack: FakeSlack) -> Iterator[Control]:
    env: dict[str, str] = {"FIELDSTATION_FLOW_APPROVALS_SLACK_USERS": '{"U_ADA": "ada"}'}
    slack.set_environment(type("Environment", (), {"setenv": lambda self, name, value: env.update({name: value})})())
    running = Control(tmp_path, env)
    running.start()
    yield running
    running.kill()


def cli(control: Control, *words: str, ok: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "fieldstation", "approvals", *words],
        capture_output=True, text=True, timeout=60, env={**os.environ, "FIELDSTATION_CONTROL": control.url},
    )  # fmt: skip
    assert not ok or done.returncode == 0, done.stderr
    return done


def test_by_slack_by_cli_and_by_api_at_once_exactly_one_answer_wins(control: Control, slack: FakeSlack) -> None:
    client = ApprovalsClient(control.url, name="flow")
    asked = client.ask("List the data", ACTION, reason="to see it")
    ts = slack.wait_for_text("ls -la /data").ts

    def by_api() -> str:
        try:
            return ApprovalsClient(control.url, name="bob").deny(asked.id).state
        except ApprovalError as error:
            return error.code

    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(lambda: slack.press(ts, "approve", "U_ADA")),
            pool.submit(by_api),
            pool.submit(lambda: cli(control, "approve", asked.id, ok=False)),
        ]
        concurrent.futures.wait(jobs)
    found = client.wait(asked.id)
    assert len(found.answers) == 1
    assert found.state in (State.APPROVED, State.DENIED)
    words = [line["what"] for line in client.audit(asked.id)]
    assert words[0] == "asked"
    assert len(words) == 2
    message = wait_for(lambda: (m := slack.messages[ts]) and found.state.upper() in json.dumps(m.blocks) and m)
    assert not any(block["type"] == "actions" for block in message.blocks)


def test_a_button_approves_under_the_persons_name_and_a_reaction_counts_too(control: Control, slack: FakeSlack) -> None:
    client = ApprovalsClient(control.url)
    first = client.ask("One", ACTION, approvers=["ada"])
    slack.press(slack.wait_for_text("One").ts, "approve", "U_ADA")
    assert client.wait(first.id).answers[0].who == "ada"
    second = client.ask("Two", ACTION)
    slack.react(slack.wait_for_text("Two").ts, "-1", "U_BOB")
    found = client.wait(second.id)
    assert (found.state, found.answers[0].who, found.answers[0].through) == ("denied", "slack:U_BOB", "slack reaction")


def test_a_stranger_in_slack_is_told_and_changes_nothing(control: Control, slack: FakeSlack) -> None:
    client = ApprovalsClient(control.url)
    asked = client.ask("Only Ada", ACTION, approvers=["ada"])
    slack.press(slack.wait_for_text("Only Ada").ts, "approve", "U_BOB")
    wait_for(lambda: slack.whispers)
    assert "may not decide" in slack.whispers[0][1]
    assert client.get(asked.id).is_open


def test_a_control_killed_in_between_loses_nothing_and_the_same_button_still_works(
    control: Control, slack: FakeSlack
) -> None:
    client = ApprovalsClient(control.url)
    asked = client.ask("Survive", ACTION)
    ts = slack.wait_for_text("Survive").ts
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.wait, asked.id, poll_s=2.0)
        control.kill()
        slack.cut_lines()
        control.start()
        slack.press(ts, "approve", "U_ADA", timeout_s=30)
        assert waiting.result(40).state is State.APPROVED
    # Killed between Slack's answer and our note of it, the message is posted once more; never again after that.
    assert len([m for m in slack.messages.values() if "Survive" in json.dumps(m.blocks)]) <= 2


def test_a_request_made_while_slack_is_down_appears_when_it_is_back(control: Control, slack: FakeSlack) -> None:
    slack.drop(1)
    slack.rate_limit(1, retry_after_s=1)
    asked = ApprovalsClient(control.url).ask("Later", ACTION)
    slack.press(slack.wait_for_text("Later", 30).ts, "deny")
    assert ApprovalsClient(control.url).wait(asked.id).state is State.DENIED


def test_time_closes_a_request_and_the_message_says_so(control: Control, slack: FakeSlack) -> None:
    client = ApprovalsClient(control.url)
    asked = client.ask("Quick", ACTION, expires_in_s=0.2)
    assert client.wait(asked.id).state is State.EXPIRED
    with pytest.raises(ApprovalClosedError, match="expired"):
        client.approve(asked.id)


def test_an_approval_is_for_what_was_shown_and_is_used_once(control: Control) -> None:
    client = ApprovalsClient(control.url)
    asked = client.ask("Run", ACTION)
    client.approve(asked.id)
    with pytest.raises(DigestMismatchError, match="not what was approved"):
        client.use(asked.id, "0" * 64)
    assert client.use(asked.id, asked.digest).state is State.USED
    with pytest.raises(FieldstationError, match="used"):
        client.use(asked.id, asked.digest)


def test_the_command_line_lists_shows_and_answers(control: Control) -> None:
    client = ApprovalsClient(control.url, name="eve")
    asked = client.ask("Run [it]", ACTION, reason="because")
    listed = json.loads(cli(control, "list", "--state", "pending", "--json").stdout)
    assert [entry["id"] for entry in listed] == [asked.id]
    assert "Run [it]" in cli(control, "list").stdout
    assert "ls -la /data" in cli(control, "show", asked.id).stdout
    assert "is approved" in cli(control, "approve", asked.id, "--comment", "go").stdout
    again = cli(control, "deny", asked.id, ok=False)
    assert again.returncode == 1
    assert "approved already" in again.stderr
    assert "is cancelled" in cli(control, "cancel", asked.id).stdout


def test_with_tokens_the_token_says_who_answers(tmp_path: Path) -> None:
    running = Control(tmp_path, {"SLACK_BOT_TOKEN": ""}, "--require-tokens")
    tokens = {}
    for user, role in (("ada", "user"), ("vic", "viewer")):
        words = ["tokens", "create", user, "--role", role, "--database", f"sqlite:///{tmp_path}/control.db"]
        done = subprocess.run(
            [sys.executable, "-m", "fieldstation", *words], capture_output=True, text=True, check=True
        )
        tokens[user] = done.stdout.split()[0]
    running.start()
    try:
        ada = ApprovalsClient(running.url, token=tokens["ada"])
        asked = ada.ask("Run", ACTION, own_answer=False)
        assert asked.requester == "ada"
        with pytest.raises(NotAnApproverError):
            ada.approve(asked.id)
        with pytest.raises(FieldstationError, match="role"):
            ApprovalsClient(running.url, token=tokens["vic"]).approve(asked.id)
        assert ApprovalsClient(running.url, token=tokens["vic"]).get(asked.id).is_open
        with pytest.raises(FieldstationError, match="token"):
            ApprovalsClient(running.url, token="fst_wrong").get(asked.id)
        with pytest.raises(FieldstationError, match="token"):
            ApprovalsClient(running.url).get(asked.id)
    finally:
        running.kill()


def test_bad_requests_and_a_missing_control_are_one_sentence(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ApprovalsClient(control.url)
    with pytest.raises(BadRequestError, match="title"):
        client.ask("", ACTION)
    with pytest.raises(BadRequestError, match="quorum"):
        client.ask("x", ACTION, quorum=2, approvers=["ada"])
    with pytest.raises(BadRequestError, match="title"):
        client._call("POST", "", {"action": {}})
    with pytest.raises(BadRequestError):
        client._call("POST", "", {"title": "x" * 1000, "action": {}})
    with pytest.raises(ApprovalUnknownError):
        client.get("a-nowhere")
    with pytest.raises(ApprovalsUnreachableError, match="FIELDSTATION_CONTROL"):
        ApprovalsClient("http://127.0.0.1:9").get("x")
    monkeypatch.delenv("FIELDSTATION_CONTROL", raising=False)
    with pytest.raises(ControlUnknownError, match="fleet control"):
        ApprovalsClient()


def test_the_control_with_approvals_stops_cleanly(control: Control) -> None:
    assert control.server is not None
    control.server.process.send_signal(signal.SIGTERM)
    assert control.server.wait(10) == 0


def test_a_foreign_page_cannot_approve(control: Control) -> None:
    import urllib.error
    import urllib.request

    asked = ApprovalsClient(control.url).ask("x", ACTION)
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
        request = urllib.request.Request(f"{control.url}/api/approvals/{asked.id}/approve", b"{}", headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 403
        refused.value.close()
    assert ApprovalsClient(control.url).get(asked.id).is_open
