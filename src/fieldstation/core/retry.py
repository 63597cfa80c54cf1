"""Waiting between tries: exponential back-off with jitter and a ceiling."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds that grow by `factor` from `initial_s` to `ceiling_s`, each spread by ±`jitter` of itself.

    The spread comes last, so a wait may pass the ceiling by that much. It keeps a hundred clients that lost the same
    server from coming back at the same moment.
    """

    initial_s: float = 0.1
    ceiling_s: float = 30.0
    factor: float = 2.0
    jitter: float = 0.2
    rng: random.Random = field(default_factory=random.Random, compare=False, repr=False)

    def delay(self, attempt: int) -> float:
        """Return the wait in seconds after failed attempt number `attempt` (from 0)."""
        # Past the ceiling the power is not computed: it overflows after about a thousand attempts.
        steps = min(attempt, 64)
        delay = min(self.initial_s * self.factor**steps, self.ceiling_s)
        return delay * (1 + self.jitter * (2 * self.rng.random() - 1))

    def __iter__(self) -> Iterator[float]:
        attempt = 0
        while True:
            yield self.delay(attempt)
            attempt += 1


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: type[BaseException] | tuple[type[BaseException], ...],
    backoff: Backoff | None = None,
    deadline_s: float | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Await `call()` until it succeeds; the last error is raised when the next wait would pass `deadline_s`."""
    # Imported here: who only wants a Backoff, such as a supervisor, does without asyncio and its megabytes.
    import asyncio

    sleep = sleep or asyncio.sleep
    started = clock()
    for delay in backoff or Backoff():
        try:
            return await call()
        except on:
            if deadline_s is not None and clock() + delay - started > deadline_s:
                raise
        await sleep(delay)
    raise AssertionError("a Backoff never ends")
