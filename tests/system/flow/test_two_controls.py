"""Two controls on one PostgreSQL, one Slack: only the leader speaks there, and approvals outlive its kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fieldstation.fleet.store import Store
from fieldstation.flow import store as tables
from fieldstation.flow.client import ApprovalsClient
from fieldstation.flow.errors import ApprovalsUnreachableError
from fieldstation.flow.model import State
from fieldstation.testing import ServerProcess, free_port, wait_for
from fieldstation.testing.slack import FakeSlack

pytestmark = pytest.mark.timeout(180)

DEADLINE_S = 60
ACTION = {"kind": "command", "arguments": ["ls"]}


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with FakeSlack(("#lab",)) as slack:
        yield slack


def test_of_two_controls_only_the_leader_posts_and_the_next_one_goes_on(slack: FakeSlack, postgres_url: str) -> None:
    env: dict[str, str] = {"DEFAULT_SLACK_CHANNEL": "#lab"}
    slack.set_environment(type("Environment", (), {"setenv": lambda self, name, value: env.update({name: value})})())
    ports = free_port(), free_port()
    servers = []
    try:
        for port in ports:
            words = ["fleet", "control", "--port", str(port), "--database", postgres_url]
            servers.append(ServerProcess(["fieldstation", *words], env=env))
            servers[-1].wait_ready(DEADLINE_S)
        # The one that stands by is named first: the client goes on to the leader.
        client = ApprovalsClient(f"http://127.0.0.1:{ports[1]},http://127.0.0.1:{ports[0]}", name="eve")
        asked = [client.ask(f"Before {number}", ACTION) for number in range(5)]
        for number in range(5):
            slack.wait_for_text(f"Before {number}", DEADLINE_S)
        # Killed between Slack's answer and the note of it, the next leader would have to show it once more.
        wait_for(lambda: all_noted(postgres_url), DEADLINE_S, every_s=0.05)
        servers[0].kill()
        after = wait_for(lambda: ask_again(client), DEADLINE_S, every_s=0.2)
        slack.press(slack.wait_for_text("After", DEADLINE_S).ts, "approve", "U_ADA", timeout_s=DEADLINE_S)
        assert client.wait(after.id).state is State.APPROVED
        assert {one.id for one in client.listing(State.PENDING)} == {one.id for one in asked}
        for words in ("After", *(f"Before {number}" for number in range(5))):
            assert len([m for m in slack.messages.values() if words in json.dumps(m.blocks)]) == 1, words
    finally:
        for server in servers:
            server.kill()


def all_noted(url: str) -> bool:
    store = Store(url)
    try:
        return not store.transact_now(tables.unshown)
    finally:
        store.close()


def ask_again(client: ApprovalsClient):
    """Until the other control leads nobody takes it; the key makes the repetition harmless."""
    try:
        return client.ask("After", ACTION, key="after")
    except ApprovalsUnreachableError:
        return None
