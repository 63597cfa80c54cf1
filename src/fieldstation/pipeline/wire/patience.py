"""Asking JetStream at start: a cluster that elects a leader does not answer, and that passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.errors import NoRespondersError
from nats.js.errors import APIError, ServiceUnavailableError

from fieldstation.core.log import mask
from fieldstation.core.retry import Backoff, retry
from fieldstation.pipeline.errors import BrokerError

T = TypeVar("T")

ELECTION_S = 60.0  # an election takes a second or two; on a busy machine with slow disks many times that

# "No suitable peers", "not available", "not the leader", and a stream or consumer whose servers are starting.
_PASSING = frozenset({10005, 10008, 10009, 10118, 10119})
_NO_ROOM = 10023  # says 503 as well, and does not pass


class _NotYetError(Exception):
    """The server said that it cannot answer now."""


async def patiently(ask: Callable[[], Awaitable[T]], url: str, wait_s: float = ELECTION_S) -> T:
    """Await `ask()` again until JetStream answers; BrokerError when it has not within `wait_s` seconds.

    What the server answers (also "there is no such stream") is passed on at once. `ask` must bear being repeated.
    """

    async def attempt() -> T:
        try:
            return await ask()
        except APIError as error:
            code = getattr(error, "err_code", None)  # nats-py leaves it out of the key-value errors
            unavailable = isinstance(error, ServiceUnavailableError) and code != _NO_ROOM
            if unavailable or code in _PASSING:
                raise _NotYetError(error) from error
            raise

    silence = (TimeoutError, NoRespondersError, _NotYetError)
    try:
        return await retry(attempt, on=silence, backoff=Backoff(0.1, 1.0), deadline_s=wait_s)
    except silence as error:
        why = str(error) or "silence"
        raise BrokerError(url=mask(url), problem=f"JetStream has not answered for {wait_s:g} s ({why})") from error
