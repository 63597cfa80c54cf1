"""Ready-made tasks with the simulated lab: boards, frames, readings, a question with an answer."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest

from fieldstation.core.errors import DeadlineError
from fieldstation.flow.client import ApprovalsClient
from fieldstation.flow.tasks import record_frames, request_slack_approval, run_command_on_worker, wait_for_reading
from fieldstation.kit.mqtt import MqttSettings
from fieldstation.kit.mqtt_blocking import BlockingMqttClient
from fieldstation.testing import ServerProcess, wait_for
from fieldstation.testing.slack import FakeSlack

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with FakeSlack(("#lab",)) as fake:
        yield fake


@pytest.fixture
def bench(tmp_path: Path, slack: FakeSlack) -> Iterator[dict[str, str]]:
    """A control that gives a dead client's boards back after two seconds and shows its questions in the fake Slack,
    and a worker with two boards."""
    env = {"FIELDSTATION_FLEET_CONTROL_GRACE_S": "2"}
    slack.set_environment(SimpleNamespace(setenv=env.__setitem__))
    database = f"sqlite:///{tmp_path}/control.db"
    control = ServerProcess(["fieldstation", "fleet", "control", "--port", "0", "--database", database], env=env)
    url = control.wait_ready(60)
    words = ["--control", url, "--port", "0", "--simulate", "2", "--dir", str(tmp_path / "worker"), "--name", "bench"]
    worker = ServerProcess(["fieldstation", "fleet", "worker", *words], env=env)
    try:
        worker.wait_ready(60)
        wait_for(lambda: free(url) == 2, 60, every_s=0.2)
        yield {
            "FIELDSTATION_CONTROL": url,
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "DO_NOT_TRACK": "1",
        }
    finally:
        worker.kill()
        control.kill()


def free(url: str) -> int:
    with urlopen(f"{url}/available", timeout=5) as answer:
        return int(json.load(answer)["amount"])


def start_example(env: dict[str, str]) -> ServerProcess:
    return ServerProcess(["fieldstation", "flow", "run", "examples/flow/bench.py:bench"], env=env, cwd=ROOT)


def question(env: dict[str, str]) -> Any:
    client = ApprovalsClient(env["FIELDSTATION_CONTROL"])
    return client, wait_for(lambda: client.listing("pending"), 150, every_s=0.3)[0]


def test_the_example_reserves_evaluates_asks_and_acts(bench: dict[str, str]) -> None:
    running = start_example(bench)
    try:
        client, asked = question(bench)
        assert free(bench["FIELDSTATION_CONTROL"]) == 0
        assert "moving on with" in str(asked.action)
        client.approve(asked.id)
        assert running.wait(90) == 0, running.output
        assert client.get(asked.id).state == "used"
        wait_for(lambda: free(bench["FIELDSTATION_CONTROL"]) == 2, 30, every_s=0.2)
    finally:
        running.kill()


def test_the_example_goes_on_when_the_button_in_slack_is_pressed(bench: dict[str, str], slack: FakeSlack) -> None:
    running = start_example(bench)
    try:
        question = slack.wait_for_text("moving on with", 150)
        assert "2 boards answered" in json.dumps(question.blocks)
        assert free(bench["FIELDSTATION_CONTROL"]) == 0
        slack.press(question.ts, "approve", "U_ADA", timeout_s=30)
        assert running.wait(90) == 0, running.output
        assert "moving on with" in running.output
        [record] = ApprovalsClient(bench["FIELDSTATION_CONTROL"]).listing("used")
        assert [answer.who for answer in record.answers] == ["slack:U_ADA"]
        wait_for(lambda: free(bench["FIELDSTATION_CONTROL"]) == 2, 30, every_s=0.2)
    finally:
        running.kill()


def test_the_example_does_nothing_when_the_button_says_no(bench: dict[str, str], slack: FakeSlack) -> None:
    running = start_example(bench)
    try:
        slack.press(slack.wait_for_text("moving on with", 150).ts, "deny", "U_BOB", timeout_s=30)
        assert running.wait(90) == 0, running.output
        assert "stopped: denied" in running.output
        [record] = ApprovalsClient(bench["FIELDSTATION_CONTROL"]).listing("denied")
        assert [answer.who for answer in record.answers] == ["slack:U_BOB"]
        wait_for(lambda: free(bench["FIELDSTATION_CONTROL"]) == 2, 30, every_s=0.2)
    finally:
        running.kill()


def test_a_flow_that_dies_gives_its_boards_back(bench: dict[str, str]) -> None:
    running = start_example(bench)
    try:
        question(bench)
        assert free(bench["FIELDSTATION_CONTROL"]) == 0
        running.send(signal.SIGKILL)
        running.wait()
        wait_for(lambda: free(bench["FIELDSTATION_CONTROL"]) == 2, 60, every_s=0.2)
    finally:
        running.kill()


def test_frames_are_recorded() -> None:
    server = ServerProcess(["fieldstation", "stream", "serve", "--port", "0", "--simulate"])
    try:
        host = server.wait_ready(60).rpartition("/")[2]
        assert len(record_frames.fn(host, 3, timeout_s=30)) == 3
    finally:
        server.kill()


@pytest.mark.needs("mosquitto")
def test_a_reading_is_waited_for_and_the_wait_ends(mosquitto: Any) -> None:
    settings = MqttSettings(port=mosquitto.port)
    with BlockingMqttClient(settings) as mqtt:
        mqtt.publish("roof/t", "19", retain=True)
        assert wait_for_reading.fn("roof/+", lambda value: value == 19, settings=settings, timeout_s=20) == 19
    with pytest.raises(DeadlineError, match="roof"):
        wait_for_reading.fn("roof/none", lambda value: True, settings=settings, timeout_s=0.3)


def test_a_question_in_slack_without_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    with FakeSlack() as slack:
        slack.set_environment(monkeypatch)
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(request_slack_approval.fn("Go?")))
        thread.start()
        slack.press(slack.wait_for_text("Go?").ts, "approve")
        thread.join()
        assert answers == ["approved"]
        slack.fail("not_in_channel")
        assert request_slack_approval.fn("Go?") == "error"


def test_the_documented_names_are_tasks_and_flows() -> None:
    script = """
from fieldstation import example_shell_command_flow, request_slack_approval, run_command_on_worker
print(example_shell_command_flow.name, "|", request_slack_approval.name, "|", run_command_on_worker.name)
print(sorted(run_command_on_worker.tags))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ}
    )
    names = "Example Shell Command Flow | Request Manual Approval via Slack | Run Shell Command on Worker"
    assert done.stdout == f"{names}\n['shell', 'worker']\n"
    assert run_command_on_worker.name
