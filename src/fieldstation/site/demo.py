"""The demonstration: servers as child processes on loopback, with simulated hardware, and files to work on."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fieldstation.core.errors import FieldstationError

READY_S = 60.0  # the first start on a slow disk compiles every module
STOP_S = 12.0
BITSTREAM_BYTES = 104_090


class DemoStartError(FieldstationError):
    """{what} did not start: {problem}. Its log is {log}."""


@dataclass(frozen=True, slots=True)
class Demo:
    """Where the running demonstration is: the control's address, and the folder that holds everything."""

    url: str
    folder: Path


@asynccontextmanager
async def fleet(folder: Path, *, port: int, boards: int = 4) -> AsyncIterator[Demo]:
    """Run a control server and a worker with simulated boards; both are stopped at the end, whatever happens.

    `folder` is absolute and exists.
    """
    url = f"http://127.0.0.1:{port}"
    control = ["fleet", "control", "--port", str(port), "--database", f"sqlite:///{folder / 'fleet.db'}"]
    worker = ["fleet", "worker", "--control", url, "--name", "demo", "--port", "0", "--simulate", str(boards)]
    # Both at once: each needs seconds to load its modules, and the worker looks for its control by itself.
    async with (
        child("control", control, folder) as first,
        child("worker", [*worker, "--dir", str(folder / "worker")], folder) as second,
    ):
        await asyncio.gather(_ready("control", first, folder), _ready("worker", second, folder))
        yield Demo(url, folder)


@asynccontextmanager
async def child(what: str, arguments: Sequence[str], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `fieldstation <arguments>` until the block ends; it logs to `<what>.log` in the folder."""
    with (folder / f"{what}.log").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fieldstation", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            start_new_session=True,  # a Ctrl-C is ours to pass on, in order
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    finally:
        await _stop(process)


async def _ready(what: str, process: asyncio.subprocess.Process, folder: Path) -> str:
    assert process.stdout is not None
    log = folder / f"{what}.log"
    try:
        async with asyncio.timeout(READY_S):
            while line := (await process.stdout.readline()).decode(errors="replace"):
                if line.startswith("ready "):
                    return line.removeprefix("ready ").strip()
    except TimeoutError:
        raise DemoStartError(what=what, problem=f"it was not ready within {READY_S:g} s", log=log) from None
    await process.wait()
    raise DemoStartError(what=what, problem=_last_line(log) or f"it ended with code {process.returncode}", log=log)


def _last_line(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2]


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _die_with_parent() -> None:
    # prctl(PR_SET_PDEATHSIG): a demonstration that is killed leaves no servers behind.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def free_port(wanted: int) -> int:
    """Return `wanted`, or the number of a free port when it is 0 or somebody listens there already."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoStartError(what="control", problem="there is no free port", log="empty")


def make_bitstreams(folder: Path, count: int = 6) -> list[Path]:
    """Write `count` files of the size of real bitstreams, always the same bytes, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"circuit-{number}.bin" for number in range(1, count + 1)]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(BITSTREAM_BYTES))
    return paths
