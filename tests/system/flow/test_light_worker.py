"""The light worker against a real Prefect server and a real control."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldstation.flow.model import command_action
from fieldstation.flow.prefect_api import FINAL
from fieldstation.flow.serve import ensure_pool
from fieldstation.testing import ServerProcess, wait_for

pytestmark = [pytest.mark.timeout(240), pytest.mark.needs("prefect")]

POOL = "pi"


@contextlib.contextmanager
def worker(lab: Any, *words: str) -> Iterator[ServerProcess]:
    command = [
        "fieldstation",
        "flow",
        "worker",
        "--pool",
        POOL,
        "--every",
        "0.3",
        "--state-dir",
        str(lab.folder / "state"),
    ]
    process = ServerProcess([*command, *words], env=lab.env)
    try:
        process.wait_ready(60)
        yield process
    finally:
        process.kill()


@pytest.fixture
def pool(lab: Any) -> str:
    ensure_pool(POOL, lab.api)
    return POOL


def ask(lab: Any, action: dict[str, Any], *, approve: bool = True) -> str:
    record = lab.approvals.ask("Run it", action)
    if approve:
        lab.approvals.approve(record.id)
    return str(record.id)


def send(lab: Any, action: dict[str, Any], approval: str | None) -> str:
    """Put a run into the pool, as anybody who reaches Prefect's API can."""
    key = f"{time.time_ns()}"
    deployment = lab.api.command_deployment(POOL)
    return str(lab.api.create_run(deployment, {"action": action, "approval": approval}, "test", key))


def ended(lab: Any, run: str) -> dict[str, Any]:
    def look() -> Any:
        found = lab.api.run(run)
        return found if found["state_type"] in FINAL else None

    found: dict[str, Any] = wait_for(look, 60, every_s=0.2)
    return found


def test_what_was_approved_runs_once_and_its_output_is_kept(lab: Any, pool: str, tmp_path: Path) -> None:
    action = command_action(["sh", "-c", f"echo hello; echo x >> {tmp_path}/ran"], pool=pool)
    approval = ask(lab, action)
    with worker(lab):
        first = send(lab, action, approval)
        assert ended(lab, first)["state_type"] == "COMPLETED"
        assert lab.api.artifact(first)["output"] == "hello\n"
        again = ended(lab, send(lab, action, approval))
        assert again["state_name"] == "Refused"
        assert "used" in again["state"]["message"]
    assert (tmp_path / "ran").read_text() == "x\n"
    assert [line["what"] for line in lab.approvals.audit(approval)] == ["asked", "approve", "use", "finished"]


def test_the_worker_of_a_site_file_runs_what_was_approved(lab: Any, pool: str, tmp_path: Path) -> None:
    allow = 'allow = ["echo *"]'
    (tmp_path / "site.toml").write_text(f"[site]\nname = 'hill'\n[flow.worker.{POOL}]\nevery_s = 0.3\n{allow}\n")
    action = command_action("echo from the site", pool=pool)
    site = ServerProcess(["fieldstation", "up", tmp_path / "site.toml"], env=lab.env)
    try:
        site.wait_ready(60)
        first = send(lab, action, ask(lab, action))
        assert ended(lab, first)["state_type"] == "COMPLETED"
        assert lab.api.artifact(first)["output"] == "from the site\n"
        forbidden = command_action(["touch", str(tmp_path / "ran")], pool=pool)
        assert "allow-list" in ended(lab, send(lab, forbidden, ask(lab, forbidden)))["state"]["message"]
        assert (tmp_path / "state" / "flow" / "worker" / POOL).is_dir()  # for its journal
        assert site.stop(30) == 0
    finally:
        site.kill()


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda lab, action: ask(lab, {**action, "timeout_s": 1.0}), "not what was approved"),
        (lambda lab, action: ask(lab, action, approve=False), "pending"),
        (lambda lab, action: "a-nowhere", "no approval"),
        (lambda lab, action: None, "nobody has approved"),
    ],
)
def test_what_nobody_approved_never_runs(
    lab: Any, pool: str, tmp_path: Path, prepare: Callable[[Any, dict[str, Any]], str | None], why: str
) -> None:
    action = command_action(["touch", str(tmp_path / "ran")], pool=pool)
    approval = prepare(lab, action)
    with worker(lab):
        found = ended(lab, send(lab, action, approval))
    assert found["state_name"] == "Refused"
    assert why in found["state"]["message"]
    assert not (tmp_path / "ran").exists()


def test_what_the_allow_list_does_not_name_is_refused_though_approved(lab: Any, pool: str, tmp_path: Path) -> None:
    forbidden = command_action(["touch", str(tmp_path / "ran")], pool=pool)
    allowed = command_action("echo fine", pool=pool)
    with worker(lab, "--allow", "echo *", "--allow", "df"):
        found = ended(lab, send(lab, forbidden, ask(lab, forbidden)))
        assert "allow-list" in found["state"]["message"]
        assert ended(lab, send(lab, allowed, ask(lab, allowed)))["state_type"] == "COMPLETED"
    assert not (tmp_path / "ran").exists()


def test_a_command_that_fails_and_one_that_takes_too_long_say_so(lab: Any, pool: str) -> None:
    with worker(lab):
        failing = command_action("sh -c 'exit 7'", pool=pool)
        assert "exit code 7" in ended(lab, send(lab, failing, ask(lab, failing)))["state"]["message"]
        slow = command_action("sleep 300", pool=pool, timeout_s=0.5)
        assert ended(lab, send(lab, slow, ask(lab, slow)))["state_name"] == "TimedOut"


def test_a_run_that_is_cancelled_ends_its_command(lab: Any, pool: str, tmp_path: Path) -> None:
    action = command_action(["sh", "-c", f"touch {tmp_path}/started; sleep 300"], pool=pool)
    with worker(lab):
        run = send(lab, action, ask(lab, action))
        wait_for((tmp_path / "started").exists, 30)
        lab.api.set_state(run, "CANCELLING", "Cancelling")
        assert ended(lab, run)["state_type"] == "CANCELLED"


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_worker_killed_in_the_middle_reports_it_and_repeats_only_what_may_be(
    lab: Any, pool: str, tmp_path: Path, repeatable: bool
) -> None:
    script = f"echo x >> {tmp_path}/ran; test $(wc -l < {tmp_path}/ran) -gt 1 || sleep 300"
    action = command_action(["sh", "-c", script], pool=pool, repeatable=repeatable)
    with worker(lab) as first:
        run = send(lab, action, ask(lab, action))
        wait_for((tmp_path / "ran").exists, 30)
        first.send(signal.SIGKILL)
        first.wait()
    with worker(lab):
        found = ended(lab, run)
    assert found["state_type"] == ("COMPLETED" if repeatable else "CRASHED")
    assert (tmp_path / "ran").read_text().count("x") == (2 if repeatable else 1)
    if not repeatable:
        assert "not repeated" in found["state"]["message"]


def test_a_worker_that_is_stopped_reports_what_it_cut(lab: Any, pool: str, tmp_path: Path) -> None:
    action = command_action(["sh", "-c", f"touch {tmp_path}/started; sleep 300"], pool=pool)
    with worker(lab) as process:
        run = send(lab, action, ask(lab, action))
        wait_for((tmp_path / "started").exists, 30)
        process.process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert ended(lab, run)["state_type"] == "CRASHED"


@pytest.mark.soak
def test_a_prefect_server_that_restarts_is_waited_for(lab: Any, pool: str) -> None:
    action = command_action("echo after", pool=pool)
    with worker(lab) as process:
        lab.prefect.kill()
        wait_for(lambda: "cannot be used" in process.output, 30)
        lab.start_prefect()
        assert ended(lab, send(lab, action, ask(lab, action)))["state_type"] == "COMPLETED"


def test_it_fits_a_small_device(lab: Any, pool: str) -> None:
    with worker(lab) as process:
        wait_for(lambda: lab.api.call("POST", f"/work_pools/{pool}/workers/filter", {}), 30)
        status = Path(f"/proc/{process.pid}/status").read_text()
        megabytes = int(status.split("VmRSS:")[1].split()[0]) / 1024
    assert megabytes < 30, f"{megabytes:.0f} MB"


def test_a_missing_pool_is_one_sentence(lab: Any) -> None:
    process = ServerProcess(["fieldstation", "flow", "worker", "--pool", "no such"], env=lab.env)
    assert process.wait(60) == 1
    assert "prefect work-pool create 'no such'" in process.output
    assert "Traceback" not in process.output


def test_a_missing_prefect_server_is_one_sentence(lab: Any) -> None:
    env = {**lab.env, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    process = ServerProcess(["fieldstation", "flow", "worker", "--pool", "pi"], env=env)
    assert process.wait(60) == 1
    assert "PREFECT_API_URL" in process.output
