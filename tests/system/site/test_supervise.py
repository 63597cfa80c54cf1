"""The supervisor's own rules, with programs that live for a moment."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from fieldstation.site.errors import RoleStartError, SiteRunningError
from fieldstation.site.model import Role
from fieldstation.site.supervise import Supervisor, read_status, write_private

pytestmark = pytest.mark.timeout(60)


def _role(folder: Path, code: str, **fields: object) -> Role:
    return Role("a", (sys.executable, "-S", "-c", code), folder, **fields)


async def _run(supervisor: Supervisor, until: object) -> None:
    await supervisor.start()
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(supervisor.run())
            await until()
            running.cancel()
    finally:
        await supervisor.stop()


async def test_a_role_that_ends_before_it_worked_is_one_sentence(tmp_path: Path) -> None:
    role = _role(tmp_path, "import sys; sys.exit('fieldstation: the port is taken')")
    with pytest.raises(BaseExceptionGroup) as caught:
        await _run(Supervisor("x", [role], tmp_path / "s"), asyncio.Event().wait)
    (error,) = caught.value.exceptions
    assert isinstance(error, BaseExceptionGroup)
    assert str(error.exceptions[0]) == "The role a cannot start: the port is taken"


async def test_a_program_that_is_not_there_or_cannot_be_written_for_is_one_sentence(tmp_path: Path) -> None:
    missing = Role("a", ("no-such-program-x",), tmp_path)
    (tmp_path / "file").touch()
    blocked = _role(tmp_path, "pass", files={tmp_path / "file" / "settings.toml": "x"})
    for role, words in ((missing, "no-such-program-x: No such file"), (blocked, "file")):
        with pytest.raises(BaseExceptionGroup) as caught:
            await _run(Supervisor("x", [role], tmp_path / "s"), asyncio.Event().wait)
        found = caught.value.exceptions[0]
        assert isinstance(found, BaseExceptionGroup)
        assert isinstance(found.exceptions[0], RoleStartError)
        assert words in str(found.exceptions[0])


async def test_a_stranger_on_its_port_is_not_taken_for_a_role(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        role = _role(tmp_path, "import time; time.sleep(999)", says_ready=False, port=port)
        with pytest.raises(BaseExceptionGroup) as caught:
            await _run(Supervisor("x", [role], tmp_path / "s"), asyncio.Event().wait)
    found = caught.value.exceptions[0]
    assert isinstance(found, BaseExceptionGroup)
    assert f"port {port} is taken by another program" in str(found.exceptions[0])


async def test_a_role_that_worked_is_started_again_whatever_its_exit_code(tmp_path: Path) -> None:
    role = _role(tmp_path, "print('ready here', flush=True); raise SystemExit(3)")
    supervisor = Supervisor("x", [role], tmp_path / "s")

    async def twice() -> None:
        while supervisor.processes["a"].restarts < 2:
            await asyncio.sleep(0.01)
        assert read_status(tmp_path / "s")["a"]["url"] == "here"

    await _run(supervisor, twice)


async def test_what_ignores_sigterm_is_killed_with_all_it_started(tmp_path: Path) -> None:
    code = (
        "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen(['sleep', '999']); print('ready', child.pid, flush=True); time.sleep(999)"
    )
    supervisor = Supervisor("x", [_role(tmp_path, code, stop_s=0.2)], tmp_path / "s")
    await _run(supervisor, supervisor.until_ready)
    child = int(supervisor.processes["a"].url)
    deadline = asyncio.get_running_loop().time() + 20
    while _lives(child) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.01)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_the_same_role_runs_once_from_a_folder(tmp_path: Path) -> None:
    role = _role(tmp_path, "import time; time.sleep(999)", says_ready=False)
    first, second = (Supervisor("x", [role], tmp_path / "s") for _ in range(2))
    await first.start()
    with pytest.raises(SiteRunningError, match=f"as process {os.getpid()}"):
        await second.start()
    await second.stop()
    await first.stop()
    await second.start()
    await second.stop()


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "settings.toml"
    for text in ("one", "two"):
        write_private(path, text)
        assert path.read_text() == text
        assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
