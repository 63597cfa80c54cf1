"""Child processes that never stay behind: they end with their parent, when they are told to, and in time."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a station's procedures import this module, and need no event loop
    from asyncio.subprocess import Process

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)  # before any fork: a forked child must not load anything


def die_with_parent(farewell: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to send us `farewell` when our parent dies, however it dies. Elsewhere than on Linux: nothing.

    For a child of ours at its start, or as `preexec_fn`.
    """
    if hasattr(_libc, "prctl"):
        _libc.prctl(_PR_SET_PDEATHSIG, farewell)


async def end(process: Process, patience_s: float) -> bool:
    """SIGTERM, wait, SIGKILL after `patience_s`; False when that was needed. One that ended already is left alone."""
    import asyncio

    if process.returncode is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return False
    return True


async def output_of(*command: str, timeout_s: float) -> tuple[int, str]:
    """Run a short command to its end; returns its exit code and what it said on stdout and stderr.

    Raises OSError when it cannot be started, TimeoutError when it takes too long. No process is left, whatever ends
    the wait.
    """
    import asyncio
    from asyncio.subprocess import DEVNULL, PIPE, STDOUT

    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace").strip()
