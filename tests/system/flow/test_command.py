"""Running a command: bounded, stoppable, and nothing left behind. Real processes."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from fieldstation.flow.command import KEEP_BYTES, check_allowed, run_command
from fieldstation.flow.errors import ApprovalsUnreachableError, BadRequestError, CommandRefusedError
from fieldstation.flow.model import command_action
from fieldstation.flow.running import run_action
from fieldstation.testing import wait_for

pytestmark = pytest.mark.timeout(60)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_output_and_exit_code_come_back() -> None:
    result = run_command(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.output, result.ok) == (3, "out\nerr\n", False)
    assert run_command(["true"]).ok


def test_no_shell_sees_the_arguments() -> None:
    assert run_command(["echo", "$HOME", ";", "`id`", "*"]).output == "$HOME ; `id` *\n"


def test_it_starts_in_the_home_folder_with_nothing_to_read() -> None:
    assert run_command(["pwd"]).output.strip() == str(Path.home().resolve())
    assert run_command(["cat"], timeout_s=10).output == ""


def test_a_gigabyte_of_output_costs_no_memory() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run_command(["sh", "-c", "echo first; head -c 1000000000 /dev/zero | tr '\\0' x; echo; echo last"])
    assert result.output.startswith("first\n")
    assert result.output.endswith("last\n")
    assert len(result.output) < 2 * KEEP_BYTES + 100
    assert result.dropped_bytes > 999_000_000 - 2 * KEEP_BYTES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_command_that_ignores_the_polite_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 300 & echo $! > {tmp_path}/child; echo ready; while :; do sleep 1; done"
    started = time.monotonic()
    result = run_command(["sh", "-c", script], timeout_s=0.5, grace_s=0.3)
    assert result.timed_out
    assert result.exit_code == -signal.SIGKILL
    assert time.monotonic() - started < 20
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not alive(child))


def test_what_a_command_leaves_in_the_background_goes_with_it(tmp_path: Path) -> None:
    result = run_command(["sh", "-c", f"sleep 300 >/dev/null 2>&1 & echo $! > {tmp_path}/child"], grace_s=0.3)
    assert result.ok
    wait_for(lambda: not alive(int((tmp_path / "child").read_text())))


def test_it_can_be_stopped() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    result = run_command(["sleep", "300"], stop=stop)
    assert result.stopped
    assert not result.ok


@pytest.mark.parametrize("arguments", [["/nowhere/program"], [""], ["a\0b"], [str(Path(__file__))]])
def test_what_cannot_be_started_is_one_sentence(arguments: list[str]) -> None:
    with pytest.raises(CommandRefusedError, match="is not run"):
        run_command(arguments)


def test_the_allow_list_decides_when_there_is_one() -> None:
    check_allowed(["rm", "-rf", "/"], ())
    check_allowed(["ls", "-la"], ("ls *", "df"))
    check_allowed(["df"], ("ls *", "df"))
    for arguments in (["rm", "x"], ["lsof"], ["ls"], ["/tmp/ls", "-la"]):
        with pytest.raises(CommandRefusedError, match="allow-list"):
            check_allowed(arguments, ("ls *", "df"))


def test_without_an_approval_a_worker_runs_what_its_list_names_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FIELDSTATION_FLOW_UNAPPROVED", "FIELDSTATION_FLOW_ALLOW"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CommandRefusedError, match="nobody has approved it"):
        run_action(command_action("echo x"), None)
    assert run_action(command_action("echo x"), None, allow=["echo *"]).ok
    monkeypatch.setenv("FIELDSTATION_FLOW_UNAPPROVED", "1")
    assert run_action(command_action("echo x"), None).ok


@pytest.mark.parametrize(
    ("action", "field"),
    [
        ({}, "kind"),
        ({"kind": "command"}, "arguments"),
        ({"kind": "command", "arguments": "ls"}, "arguments"),
        ({"kind": "command", "arguments": ["ls", 5]}, "arguments"),
        ({"kind": "command", "arguments": ["ls"], "timeout_s": "long"}, "timeout_s"),
        ({"kind": "command", "arguments": ["ls"], "timeout_s": -1}, "timeout_s"),
        ({"kind": "command", "arguments": ["ls"], "pool": "other"}, "pool"),
    ],
)
def test_a_malformed_action_names_the_field(action: dict[str, object], field: str) -> None:
    with pytest.raises(BadRequestError, match=field):
        run_action(action, "a-1", pool="pi")


def test_nothing_runs_while_the_control_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSTATION_CONTROL", "http://127.0.0.1:9")
    with pytest.raises(ApprovalsUnreachableError):
        run_action(command_action(["touch", str(tmp_path / "ran")]), "a-1")
    assert not (tmp_path / "ran").exists()


def test_importing_a_light_worker_needs_no_extra() -> None:
    import subprocess

    script = "import fieldstation.flow.light, sys; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    names = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for heavy in ("prefect", "pydantic", "sqlalchemy", "fastapi", "httpx", "slack_sdk", "paho"):
        assert f"'{heavy}'" not in names
