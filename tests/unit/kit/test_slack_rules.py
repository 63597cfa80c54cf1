"""What counts as an answer, and what an alert says: pure rules, no Slack."""

from typing import Any

import pytest

from fieldstation.kit.slack import Answer, decide
from fieldstation.kit.slack_alerts import SlackLoguruSink, compose
from fieldstation.kit.slack_api import SlackError, SlackRateLimitedError, SlackUnreachableError, escape


def reactions(**users: list[str]) -> list[dict[str, Any]]:
    names = {"up": "+1", "down": "-1", "dark": "+1::skin-tone-5", "word": "thumbsup", "heart": "heart"}
    return [{"name": names[key], "users": who} for key, who in users.items()]


@pytest.mark.parametrize(
    ("given", "answer", "by"),
    [
        (reactions(), None, ""),
        (reactions(heart=["U1"]), None, ""),
        (reactions(up=["U1"]), "approved", "U1"),
        (reactions(dark=["U1"]), "approved", "U1"),
        (reactions(word=["U1"]), "approved", "U1"),
        (reactions(down=["U1"]), "denied", "U1"),
        (reactions(up=["U1"], down=["U2"]), "denied", "U2"),
        (reactions(up=["BOT"]), None, ""),
        (reactions(up=["BOT", "U1"]), "approved", "U1"),
    ],
)
def test_reactions_decide(given: Any, answer: str | None, by: str) -> None:
    found = decide(given, None, "BOT")
    assert found == answer
    assert found is None or found.by == by


def test_a_stranger_decides_nothing_when_approvers_are_named() -> None:
    assert decide(reactions(down=["U9"], up=["U9"]), {"U1"}) is None
    assert decide(reactions(down=["U9"], up=["U9", "U1"]), {"U1"}) == "approved"


def test_an_answer_is_plain_text_that_knows_who() -> None:
    answer = Answer("approved", by="U1", through="slack button")
    assert answer == "approved"
    assert f"{answer}" == "approved"
    assert answer.by == "U1"


def test_text_is_shown_as_it_is() -> None:
    assert escape("a < b & <!channel> > c") == "a &lt; b &amp; &lt;!channel&gt; &gt; c"


def test_lines_that_differ_in_numbers_only_are_one_line_with_a_count() -> None:
    text = compose([f"ERROR pump {n} stalled at 0x{n:x}" for n in range(17)] + ["ERROR other"])
    assert text == "ERROR pump 0 stalled at 0x0\n(and 16 more like this)\nERROR other"


def test_an_alert_masks_secrets_escapes_markup_and_is_bounded() -> None:
    text = compose(["login http://ada:hunter2@host <b> Bearer abcdefghijkl"] + ["x" * 100_000] * 2, dropped=5)
    assert "hunter2" not in text
    assert "abcdefghijkl" not in text
    assert "&lt;b&gt;" in text
    assert "5 more alerts were dropped" in text
    assert len(text) < 40_000


class Api:
    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.posted: list[str] = []

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.posted.append(arguments["text"])
        return {}


def sink(api: Api, pauses: list[float], capacity: int = 1000) -> SlackLoguruSink:
    return SlackLoguruSink("t", "#c", api=api, sleep=pauses.append, capacity=capacity)


def test_a_thousand_errors_are_few_posts() -> None:
    api, pauses = Api(), []
    alerts = sink(api, pauses)
    for number in range(1000):
        alerts(f"ERROR {number}")
    alerts.close()
    assert len(api.posted) <= 20
    assert sum("more like this" in post for post in api.posted) >= 1


def test_slacks_pause_is_kept_and_an_outage_is_waited_for() -> None:
    api = Api(SlackRateLimitedError(method="m", retry_after_s=7), SlackUnreachableError(method="m", problem="down"))
    pauses: list[float] = []
    alerts = sink(api, pauses)
    alerts._post("ERROR x")
    assert api.posted == ["ERROR x"]
    assert pauses[0] == 7
    assert len(pauses) == 2


def test_a_refused_token_is_said_once_on_stderr_and_not_tried_for_ever(capsys: pytest.CaptureFixture[str]) -> None:
    alerts = sink(Api(*[SlackError(method="m", problem="the token is refused", code="invalid_auth")] * 3), [])
    for _ in range(3):
        alerts._post("ERROR x")
    assert capsys.readouterr().err.count("the token is refused") == 1


def test_a_full_queue_drops_and_counts_and_never_blocks() -> None:
    alerts = sink(Api(), [], capacity=2)
    alerts._thread = object()
    for _ in range(10):
        alerts("ERROR x")
    assert alerts.dropped == 8
