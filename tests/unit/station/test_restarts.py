from __future__ import annotations

import random

from fieldstation.core.retry import Backoff
from fieldstation.station.restarts import REST_S, RestartPolicy


def policy(per_hour=60):
    return RestartPolicy(per_hour, Backoff(initial_s=0.1, ceiling_s=30.0, rng=random.Random(1)))


def test_the_first_restart_is_almost_at_once_and_later_ones_wait_longer():
    delays = [(p := policy()) and p.died(0.0, 1.0)] + [p.died(float(n), 1.0) for n in range(1, 12)]
    assert delays[0] < 0.2
    assert 20 < delays[-1] < 40
    assert delays[:8] == sorted(delays[:8])


def test_a_process_that_lived_for_a_while_starts_the_series_anew():
    p = policy()
    for n in range(8):
        p.died(float(n), 1.0)
    assert p.died(100.0, 90.0) < 0.2


def test_who_dies_more_often_than_the_budget_rests():
    p = policy(per_hour=3)
    assert [p.died(float(n), 1.0) >= REST_S for n in range(4)] == [False, False, True, True]


def test_an_hour_later_the_budget_is_whole_again():
    p = policy(per_hour=2)
    p.died(0.0, 1.0)
    p.died(1.0, 1.0)
    assert p.died(3700.0, 3600.0) < REST_S
