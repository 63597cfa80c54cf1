import random
from itertools import islice

import pytest

from fieldstation.core.retry import Backoff, retry


def test_delays_grow_to_the_ceiling():
    assert list(islice(Backoff(1, 5, 2, jitter=0), 5)) == [1, 2, 4, 5, 5]


def test_jitter_spreads_each_delay_within_its_share():
    backoff = Backoff(10, 10, jitter=0.2, rng=random.Random(1))
    delays = [backoff.delay(0) for _ in range(1000)]
    assert min(delays) >= 8
    assert max(delays) <= 12
    assert max(delays) - min(delays) > 3.9


def test_the_millionth_attempt_still_has_a_delay():
    assert Backoff(0.1, 30, jitter=0).delay(10**6) == 30


class Clock:
    def __init__(self):
        self.now = 0.0

    async def sleep(self, delay):
        self.now += delay


def flaky(failures, error=OSError):
    left = [error("down")] * failures

    async def call():
        if left:
            raise left.pop()
        return "up"

    return call


async def attempt(call, **kwargs):
    clock = Clock()
    kwargs = {"on": OSError, "backoff": Backoff(1, 8, 2, jitter=0), **kwargs}
    return await retry(call, sleep=clock.sleep, clock=lambda: clock.now, **kwargs), clock.now


async def test_a_call_is_tried_until_it_succeeds():
    assert await attempt(flaky(3)) == ("up", 7)


async def test_other_errors_pass_at_once():
    with pytest.raises(KeyError):
        await attempt(flaky(1, KeyError))


async def test_the_last_error_is_raised_when_the_next_wait_would_pass_the_deadline():
    with pytest.raises(OSError, match="down"):
        await attempt(flaky(3), deadline_s=6)
    assert await attempt(flaky(3), deadline_s=7) == ("up", 7)
