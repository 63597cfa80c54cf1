"""The twin that all boards of a worker share: cache, then a pool of child processes, one per core."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fieldstation.fleet.twin.cache import AnswerCache
from fieldstation.fleet.twin.evaluate import find_tools
from fieldstation.fleet.twin.model import Answer, Conditions, unknown

log = logging.getLogger(__name__)

# Answers about this moment rather than the design: a slow machine today may be a fast one tomorrow.
_PASSING = ("too_long", "too_large")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one evaluation may take before the design is called too long or too large."""

    timeout_s: float = 60.0
    memory_bytes: int = 1 << 30
    processes: int = 0  # 0: one per core

    @property
    def pool(self) -> int:
        """The number of child processes."""
        return self.processes or os.cpu_count() or 1


class Twin:
    """Answers for bitstreams, each computed once however many boards ask. Use as an async context manager."""

    def __init__(self, cache: AnswerCache, conditions: Conditions | None = None, limits: Limits | None = None) -> None:
        self.cache = cache
        self.conditions = conditions or Conditions()
        self.limits = limits or Limits()
        self._idle: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        self._running: dict[str, asyncio.Task[Answer]] = {}

    async def __aenter__(self) -> Twin:
        find_tools()
        for _ in range(self.limits.pool):
            self._idle.put_nowait(_Child(self.limits))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        while not self._idle.empty():
            await self._idle.get_nowait().kill()

    async def answer(self, bitstream: bytes, sampled: bool = False) -> Answer:
        """Return what a board would answer for `bitstream`: pulses, or ADC samples when `sampled`."""
        digest = self.conditions.digest(bitstream, sampled)
        kept = self.cache.get(digest)
        if kept is not None:
            return kept
        task = self._running.get(digest)
        if task is None:
            task = asyncio.create_task(self._compute(digest, bitstream, sampled), name=f"twin-{digest[:8]}")
            self._running[digest] = task
            task.add_done_callback(lambda _: self._running.pop(digest, None))
        # Shielded: a board that is unplugged while it waits must not take the answer from the others.
        return await asyncio.shield(task)

    async def _compute(self, digest: str, bitstream: bytes, sampled: bool) -> Answer:
        async with self._child() as child:
            answer = await child.evaluate(bitstream, self.conditions, sampled)
        if answer.reason not in _PASSING:
            try:
                await asyncio.to_thread(self.cache.put, digest, answer)
            except OSError as error:  # a full disk costs time at the next asking, not this answer
                log.warning("the twin's answer is not kept: %s", error)
        return answer

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator[_Child]:
        child = await self._idle.get()
        try:
            yield child
        finally:
            self._idle.put_nowait(child)


class _Child:
    """One child process, started when first needed and again after it had to be killed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None

    async def evaluate(self, bitstream: bytes, conditions: Conditions, sampled: bool) -> Answer:
        # Ours, not the child's: it goes too when the child has to be killed.
        with tempfile.TemporaryDirectory(prefix="twin-", ignore_cleanup_errors=True) as folder:
            (Path(folder) / "design.bin").write_bytes(bitstream)
            try:
                async with asyncio.timeout(self._limits.timeout_s):
                    return await self._ask({"folder": folder, "conditions": asdict(conditions), "sampled": sampled})
            except TimeoutError:
                await self.kill()
                return unknown("too_long", f"no answer within {self._limits.timeout_s:g} s")
            except BaseException:
                await self.kill()  # its answer to this question must not become the answer to the next one
                raise

    async def _ask(self, job: dict[str, object], again: bool = True) -> Answer:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fieldstation.fleet.twin.child", str(self._limits.memory_bytes),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20, start_new_session=True,
            )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # the empty answer below tells that it has died
            process.stdin.write(json.dumps(job).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            await self.kill()
            if again:
                return await self._ask(job, again=False)
            return unknown("too_large", "the process that computed it was ended twice")
        raw = json.loads(line)
        return Answer(**{**raw, "samples": tuple(raw["samples"])})

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                # The whole group: compiler and generated program are its children.
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
