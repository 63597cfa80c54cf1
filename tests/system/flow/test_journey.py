"""The documented steps 1 to 4 with Prefect's own worker, without internet; and what the flow does with a no."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fieldstation.flow.prefect_api import FINAL
from fieldstation.testing import ServerProcess, program, wait_for

pytestmark = [pytest.mark.timeout(400), pytest.mark.needs("prefect")]

INSIDE = "FIELDSTATION_TEST_NAMESPACE"

DEPLOYMENT = """
from fieldstation import example_shell_command_flow

if __name__ == "__main__":
    example_shell_command_flow.serve(
        name="my-first-deployment",
        work_pool_name="my-pi-pool"
    )
"""


def in_an_empty_network(test: str) -> bool:
    """Run `test` again in a network namespace that has only loopback, where root allows it; True when that was done."""
    if INSIDE in os.environ or os.geteuid() != 0:
        return False
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode != 0:
        return False
    command = f"ip link set lo up && exec {sys.executable} -m pytest -q -p no:randomly '{__file__}::{test}'"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", command], env={**os.environ, INSIDE: "1"}, capture_output=True, text=True,
        check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return True


def prefect(lab: Any, *words: str) -> str:
    """Run Prefect's command line; a server on a busy SQLite is asked again."""
    env = {**os.environ, **lab.env}
    for _ in range(5):
        done = subprocess.run([program("prefect"), *words], env=env, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
        time.sleep(1)
    raise AssertionError(done.stdout + done.stderr)


def run_of(lab: Any, flow: str, after: set[str]) -> dict[str, Any]:
    def look() -> Any:
        body = {"flows": {"name": {"any_": [flow]}}}
        found = [r for r in lab.api.call("POST", "/flow_runs/filter", body) if r["id"] not in after]
        return found[0] if found and found[0]["state_type"] in FINAL else None

    found: dict[str, Any] = wait_for(look, 120, every_s=0.5)
    return found


@pytest.fixture
def serving(lab: Any) -> Any:
    script = lab.folder / "my_deployment.py"
    script.write_text(DEPLOYMENT)
    process = ServerProcess([sys.executable, script], env=lab.env)
    wait_for(lambda: "is being served" in process.output or process.process.poll() is not None, 90)
    assert process.process.poll() is None, process.output
    yield process
    process.stop()


def trigger(lab: Any, command: str) -> None:
    name = "Example Shell Command Flow/my-first-deployment"
    prefect(lab, "deployment", "run", name, "-p", f"command={command}")


def test_the_documented_steps_one_to_four(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if in_an_empty_network("test_the_documented_steps_one_to_four"):
        return
    lab: Any = request.getfixturevalue("lab")
    prefect(lab, "work-pool", "create", "my-pi-pool", "--type", "process")
    worker = ServerProcess([program("prefect"), "worker", "start", "--pool", "my-pi-pool"], env=lab.env)
    try:
        request.getfixturevalue("serving")
        trigger(lab, f"ls -la {tmp_path}")
        question = lab.slack.wait_for_text(f"ls -la {tmp_path}", 90)
        assert not lab.api.call("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["Run Approved Command"]}}}), (
            "nothing reaches the pool before the yes"
        )
        lab.slack.press(question.ts, "approve", "U_ADA")
        assert run_of(lab, "Run Approved Command", set())["state_type"] == "COMPLETED"
        found = run_of(lab, "Example Shell Command Flow", set())
        assert (found["state_type"], found["state_name"]) == ("COMPLETED", "Approved")
        assert "total" in found["state"]["message"]
    finally:
        worker.stop()


def test_a_denied_and_an_expired_request_end_as_such_and_nothing_runs(lab: Any, serving: Any, tmp_path: Path) -> None:
    def runs() -> set[str]:
        return {r["id"] for r in lab.api.call("POST", "/flow_runs/filter", {})}

    before = runs()
    trigger(lab, f"touch {tmp_path}/ran")
    lab.slack.press(lab.slack.wait_for_text(f"touch {tmp_path}/ran", 90).ts, "deny", "U_BOB")
    denied = run_of(lab, "Example Shell Command Flow", before)
    assert (denied["state_type"], denied["state_name"]) == ("COMPLETED", "Denied")
    assert "U_BOB" in denied["state"]["message"]
    before = runs()
    name = "Example Shell Command Flow/my-first-deployment"
    prefect(lab, "deployment", "run", name, "-p", f"command=touch {tmp_path}/late", "-p", "expires_in_s=1")
    assert run_of(lab, "Example Shell Command Flow", before)["state_name"] == "Expired"
    assert "Run Approved Command" not in json.dumps([lab.api.run(r) for r in runs() - before])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_prefect_restarted_while_a_flow_waits_costs_nothing(lab: Any, serving: Any, tmp_path: Path) -> None:
    before = {r["id"] for r in lab.api.call("POST", "/flow_runs/filter", {})}
    worker = ServerProcess(
        [
            "fieldstation",
            "flow",
            "worker",
            "--pool",
            "my-pi-pool",
            "--every",
            "0.5",
            "--state-dir",
            str(tmp_path / "s"),
        ],
        env=lab.env,
    )
    try:
        trigger(lab, f"touch {tmp_path}/ran")
        question = lab.slack.wait_for_text(f"touch {tmp_path}/ran", 90)
        lab.prefect.kill()
        lab.start_prefect()
        lab.slack.press(question.ts, "approve")
        wait_for((tmp_path / "ran").exists, 120)
        assert run_of(lab, "Example Shell Command Flow", before)["state_name"] == "Approved"
    finally:
        worker.kill()
