"""core.children: nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from fieldstation.core.children import end, output_of

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(999)"


async def _python(code: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", code, stdout=asyncio.subprocess.PIPE)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_child_that_hears_is_given_its_time():
    process = await _python("import time; time.sleep(999)")
    assert await end(process, 60)
    assert process.returncode == -15
    assert await end(process, 60)  # again is harmless


async def test_a_child_that_does_not_hear_is_killed():
    process = await _python(DEAF)
    assert process.stdout is not None
    await process.stdout.readline()
    assert not await end(process, 0.01)
    assert process.returncode == -9


async def test_a_command_is_answered_with_its_code_and_all_it_said():
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    assert await output_of(sys.executable, "-S", "-c", code, timeout_s=60) == (3, "out\nerr")
    with pytest.raises(FileNotFoundError):
        await output_of("/nowhere/at/all", timeout_s=60)


@pytest.mark.parametrize("how", ["late", "cancelled"])
async def test_a_command_nobody_waits_for_any_more_is_gone(tmp_path: Path, how: str):
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r} + '.new', 'w').write(str(os.getpid())); "
    code += f"os.rename({str(note)!r} + '.new', {str(note)!r}); time.sleep(999)"
    task = asyncio.create_task(output_of(sys.executable, "-S", "-c", code, timeout_s=1.0 if how == "late" else 60))
    while how == "cancelled" and not note.exists():
        await asyncio.sleep(0.01)
    if how == "cancelled":
        task.cancel()
    with pytest.raises(TimeoutError if how == "late" else asyncio.CancelledError):
        await task
    assert not note.exists() or not _alive(int(note.read_text()))
