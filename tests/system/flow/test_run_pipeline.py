"""A message through a real pipeline on a NATS server of its own, from a Prefect task."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from fieldstation.core.errors import DeadlineError
from fieldstation.flow.errors import BadRequestError, PipelineStartError
from fieldstation.flow.pipelines import route, run_pipeline, running
from fieldstation.pipeline import state
from fieldstation.pipeline.errors import ManifestError, MessageError, RequestFailedError, StreamMissingError
from fieldstation.pipeline.manifest import parse
from fieldstation.pipeline.wire.values import from_payload, to_payload
from fieldstation.testing import ServerProcess, wait_for

pytestmark = pytest.mark.timeout(150)

KRT = """
version: v0.1.0
description: a door, a task that shouts, an exit
workflows:
  - name: hello
    type: serving
    processes:
      - {name: door, type: trigger, image: local, subscriptions: [out]}
      - {name: mix, type: task, image: local, subscriptions: [door]}
      - {name: out, type: exit, image: local, subscriptions: [mix]}
"""
HEAD = "from google.protobuf.wrappers_pb2 import StringValue\nfrom fieldstation import pipeline\n"
NODES = {
    "door": "import asyncio\n@pipeline.trigger\nasync def door(requests, sdk):\n    await asyncio.Event().wait()\n",
    "mix": """
@pipeline.task(attempts=1)
async def mix(sdk, message: StringValue) -> StringValue:
    if message.value == "bad":
        raise ValueError("not today")
    return StringValue(value=message.value.upper())
""",
    "out": """
@pipeline.exit
async def out(sdk, message: StringValue):
    return None if message.value == "QUIET" else message
""",
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    for name, text in NODES.items():
        (folder / f"{name}.py").write_text(HEAD + text)
    (folder / "krt.yaml").write_text(KRT)
    return folder / "krt.yaml"


def test_a_pipeline_that_does_not_run_is_started_for_the_call_and_stopped_after_it(
    manifest: Path, tmp_path: Path
) -> None:
    place = tmp_path / "state"
    assert run_pipeline.fn(manifest, "hello", folder=place, timeout_s=90) == "HELLO"
    assert running(place, "hello") == ""
    assert not (place / "state.json").exists()


def test_a_running_pipeline_is_used_and_left_running(manifest: Path, tmp_path: Path) -> None:
    place = tmp_path / "state"
    up = ServerProcess(["fieldstation", "pipeline", "up", str(manifest), "--state", str(place)])
    try:
        url = up.wait_ready(90)
        pid = state.read(place, "hello").pid

        def run(message: Any, **more: Any) -> Any:
            return run_pipeline.fn(manifest, message, folder=place, **{"timeout_s": 60, **more})

        assert run("one") == "ONE"
        assert run(StringValue(value="two"), process="door", workflow="hello", exits="out") == "TWO"
        assert run_pipeline.fn(manifest, "three", nats=url, timeout_s=60, folder=tmp_path / "elsewhere") == "THREE"
        with pytest.raises(RequestFailedError, match=r"mix gave it up.*not today"):
            run("bad")
        with pytest.raises(DeadlineError, match="an output of out in the pipeline hello"):
            run("quiet", timeout_s=1.5)
        with pytest.raises(StreamMissingError):
            run("x", product="other", nats=url)
        assert run("again") == "AGAIN"
        assert (state.read(place, "hello").pid, up.process.poll()) == (pid, None)
    finally:
        up.stop()


FLOW = """
from fieldstation.flow import flow, run_pipeline


@flow
def whole(krt: str, place: str):
    print("answer", run_pipeline(krt, "hello", folder=place, timeout_s=90))
    run_pipeline(krt, "quiet", folder=place, timeout_s=90)


if __name__ == "__main__":
    import sys

    whole(*sys.argv[1:])
"""


def test_inside_a_flow_that_is_killed_the_pipeline_it_started_ends_too(manifest: Path, tmp_path: Path) -> None:
    script, place = tmp_path / "script.py", tmp_path / "state"
    script.write_text(FLOW)
    env = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
    }
    flow = ServerProcess([sys.executable, script, manifest, place], env=env)
    try:
        wait_for(lambda: "answer HELLO" in flow.output, 120, every_s=0.1)
        wait_for(lambda: running(place, "hello"), 60, every_s=0.1)
        pipeline = state.read(place, "hello").pid
        os.kill(flow.pid, signal.SIGKILL)  # it alone, not its group
        wait_for(lambda: not state.is_alive(pipeline), 60, every_s=0.1)
    finally:
        flow.kill()


def test_what_cannot_be_started_is_said_in_one_sentence(manifest: Path, tmp_path: Path) -> None:
    (manifest.parent / "mix.py").unlink()
    with pytest.raises(PipelineStartError, match="nothing to run for process mix"):
        run_pipeline.fn(manifest, "hello", folder=tmp_path / "state", timeout_s=60)
    (manifest.parent / "krt.yaml").write_text("version: 1\n")
    with pytest.raises(ManifestError):
        run_pipeline.fn(manifest, "hello", folder=tmp_path / "state")


def test_the_manifest_says_who_sends_and_who_answers_and_a_choice_is_asked_for() -> None:
    names, sender, ends = route(parse(KRT), "demo")
    assert (names.stream, sender, ends) == ("demo_v0_1_0_hello", "door", ["out"])
    two = KRT.replace("      - {name: out,", "      - {name: side, type: trigger, image: local}\n      - {name: out,")
    with pytest.raises(BadRequestError, match="field process is wrong: say which one: door, side"):
        route(parse(two), "demo")
    assert route(parse(two), "demo", process="mix")[1] == "mix"
    for told in ({"process": "nobody"}, {"workflow": "nobody"}, {"exits": "nobody"}):
        with pytest.raises(BadRequestError, match=f"{next(iter(told))}.*there is no nobody"):
            route(parse(KRT), "demo", **told)


@pytest.mark.parametrize("value", ["text", b"\0bytes", True, -(2**40), 1.5, {"a": [1.0, "b", None]}, [1.0, {"c": 2.0}]])
def test_plain_values_come_back_as_they_went(value: Any) -> None:
    found = from_payload(to_payload(value))
    assert (found, type(found)) == (value, type(value)), json.dumps(str(found))


@pytest.mark.parametrize("value", [object(), {"a": object()}, 2**70, [{1, 2}]])
def test_a_value_without_a_protobuf_form_is_refused(value: Any) -> None:
    with pytest.raises(MessageError, match="protobuf"):
        to_payload(value)
