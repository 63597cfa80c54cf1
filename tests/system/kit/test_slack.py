"""Slack's tools against the fake Slack of the test kit: real HTTP, a real WebSocket."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fieldstation.kit import slack as kit_slack
from fieldstation.kit.slack import Answer, ask_for_approval, await_approval_response, send_slack_message
from fieldstation.kit.slack_api import (
    SlackApi,
    SlackError,
    SlackRateLimitedError,
    SlackTokenMissingError,
    SlackUnreachableError,
)
from fieldstation.testing.slack import FakeSlack

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlack]:
    monkeypatch.delenv("SLACK_APPROVERS", raising=False)
    with FakeSlack(("#lab", "#other")) as fake:
        fake.set_environment(monkeypatch)
        yield fake


def waiting(request: dict[str, Any], **more: Any) -> tuple[threading.Thread, list[Answer]]:
    answers: list[Answer] = []

    def wait() -> None:
        answers.append(await_approval_response(request["ts"], request["channel"], 15, **more))

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, answers


def test_a_message_goes_to_the_default_channel_or_the_named_one(slack: FakeSlack) -> None:
    assert send_slack_message("hello")["channel"] == slack.channels["#lab"]
    assert send_slack_message("hello", "#other")["channel"] == slack.channels["#other"]


@pytest.mark.parametrize(("button", "answer"), [("approve", "approved"), ("deny", "denied")])
def test_pressing_a_button_decides_and_the_message_says_who(slack: FakeSlack, button: str, answer: str) -> None:
    request = ask_for_approval("Heat to 400 K?")
    thread, answers = waiting(request)
    slack.press(request["ts"], button, "U_ADA")
    thread.join()
    assert answers == [answer]
    assert (answers[0].by, answers[0].through) == ("U_ADA", "slack button")
    message = slack.messages[request["ts"]]
    assert message.text == f"*{answer.capitalize()}* by <@U_ADA>."
    assert not any(block["type"] == "actions" for block in message.blocks), "no button is left to press"


def test_a_reaction_decides_without_an_app_token(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    slack.set_environment(monkeypatch, buttons=False)
    monkeypatch.setattr(kit_slack, "POLL_S", 0.02)
    request = ask_for_approval("Go?")
    thread, answers = waiting(request)
    slack.react(request["ts"], "+1::skin-tone-3", "U_BOB")
    thread.join()
    assert answers == ["approved"]
    assert answers[0].by == "U_BOB"


def test_a_stranger_is_told_and_decides_nothing(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_APPROVERS", "U_ADA, U_EVE")
    monkeypatch.setattr(kit_slack, "POLL_S", 0.02)
    request = ask_for_approval("Go?")
    slack.react(request["ts"], "-1", "U_BOB")
    thread, answers = waiting(request)
    slack.press(request["ts"], "deny", "U_BOB")
    slack.press(request["ts"], "approve", "U_ADA")
    thread.join()
    assert answers == ["approved"]
    assert [user for user, _ in slack.whispers] == ["U_BOB"]


def test_a_second_press_changes_nothing(slack: FakeSlack) -> None:
    request = ask_for_approval("Go?")
    thread, answers = waiting(request)
    slack.press(request["ts"], "deny", "U_ADA")
    thread.join()
    with pytest.raises(StopIteration):
        slack.press(request["ts"], "approve", "U_BOB")
    assert answers == ["denied"]


def test_nobody_answering_is_a_timeout_and_closes_the_message(slack: FakeSlack) -> None:
    request = ask_for_approval("Go?")
    now = iter(range(0, 10_000, 100))
    answer = await_approval_response(
        request["ts"], request["channel"], 300, clock=lambda: next(now), sleep=lambda s: None
    )
    assert answer == "timeout"
    assert "closed" in slack.messages[request["ts"]].text


def test_outages_and_rate_limits_do_not_end_the_wait(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    slack.set_environment(monkeypatch, buttons=False)
    request = ask_for_approval("Go?")
    slack.react(request["ts"], "+1")
    slack.drop(3)
    slack.rate_limit(1, retry_after_s=42)
    slack.fail("internal_error")
    pauses: list[float] = []
    answer = await_approval_response(request["ts"], request["channel"], sleep=pauses.append)
    assert answer == "approved"
    assert 42 in pauses


def test_an_app_without_the_reactions_permission_reads_the_history(
    slack: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack.set_environment(monkeypatch, buttons=False)
    request = ask_for_approval("Go?")
    slack.react(request["ts"], "-1", "U_BOB")
    api = SlackApi()
    call = api.call

    def refusing(method: str, **arguments: Any) -> dict[str, Any]:
        if method == "reactions.get":
            raise SlackError(method=method, problem="scope", code="missing_scope")
        return call(method, **arguments)

    monkeypatch.setattr(api, "call", refusing)
    assert await_approval_response(request["ts"], request["channel"], api=api) == "denied"


def test_a_rate_limit_is_waited_for_and_then_the_call_succeeds(slack: FakeSlack) -> None:
    slack.rate_limit(2, retry_after_s=3)
    pauses: list[float] = []
    assert SlackApi(sleep=pauses.append).call("auth.test")["ok"]
    assert pauses == [3, 3]
    slack.rate_limit(1, retry_after_s=3600)
    with pytest.raises(SlackRateLimitedError, match="3600"):
        SlackApi().call("auth.test")


def test_every_failure_is_one_sentence_and_sending_never_raises(
    slack: FakeSlack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert send_slack_message("x", "#nowhere") == {}
    assert "no such channel" in caplog.text
    slack.fail("not_in_channel")
    assert ask_for_approval("x") == {}
    assert "/invite" in caplog.text
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-wrong")
    with pytest.raises(SlackError, match="token is refused"):
        SlackApi().call("auth.test")
    monkeypatch.setenv("SLACK_API_URL", "http://127.0.0.1:9/api/")
    with pytest.raises(SlackUnreachableError, match="cannot be reached"):
        SlackApi().call("auth.test")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "")
    with pytest.raises(SlackTokenMissingError, match="set SLACK_BOT_TOKEN"):
        SlackApi().call("auth.test")
    assert send_slack_message("x") == {}
    assert "set SLACK_BOT_TOKEN" in caplog.text


def test_slack_client_is_none_without_a_token_and_the_official_client_with_one(
    slack: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kit_slack.slack_client.auth_test()["user_id"] == "U_BOT"
    monkeypatch.setenv("SLACK_BOT_TOKEN", "")
    assert kit_slack.slack_client is None


def test_errors_of_the_console_logger_reach_slack_and_others_do_not(slack: FakeSlack) -> None:
    script = """
from fieldstation.kit import logger
logger.info("just info")
logger.warning("a warning")
for number in range(50):
    logger.error("pump {} stalled, token=hunter2", number)
"""
    environment = {
        "SLACK_API_URL": slack.base_url,
        "SLACK_BOT_TOKEN": "xoxb-fake",
        "SLACK_LOGGING_CHANNEL": "#other",
    }
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "| INFO     | " in result.stderr
    assert result.stderr.count("stalled") == 50
    messages = list(slack.messages.values())
    assert 1 <= len(messages) <= 3
    assert {m.channel for m in messages} == {slack.channels["#other"]}
    assert "just info" not in "".join(m.text for m in messages)
    assert "hunter2" not in "".join(m.text for m in messages)


def test_a_slack_that_is_down_does_not_hold_the_program_up(slack: FakeSlack) -> None:
    script = """
import logging
from fieldstation.kit.slack_alerts import SlackHandler, SlackLoguruSink
log = logging.getLogger()
log.addHandler(SlackHandler(SlackLoguruSink("t", "#c")))
for _ in range(5000):
    log.error("x")
print("done")
"""
    environment = {"SLACK_API_URL": "http://127.0.0.1:9/api/"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=10
    )
    assert result.stdout == "done\n"
    assert result.stderr.count("cannot be reached") == 1


def test_the_log_level_of_the_handler_is_error(slack: FakeSlack) -> None:
    from fieldstation.kit.slack_alerts import SlackHandler, SlackLoguruSink

    assert SlackHandler(SlackLoguruSink("t", "#c")).level == logging.ERROR
