"""How often somebody may be wrong at the login."""

from fieldstation.web.attempts import FORGET_S, LONGEST_S, MANY, Attempts


def test_the_first_mistakes_cost_nothing_and_the_next_ones_ever_more():
    attempts = Attempts(free=3)
    waits = []
    now = 0.0
    for _ in range(14):
        waits.append(attempts.wait_s("1.2.3.4", now))
        now += waits[-1]
        attempts.failed("1.2.3.4", now)
    assert waits[:3] == [0, 0, 0]
    assert waits[3:7] == [2, 4, 8, 16]
    assert waits[-1] == LONGEST_S


def test_the_wait_passes():
    attempts = Attempts(free=1)
    attempts.failed("a", 10.0)
    assert attempts.wait_s("a", 11.0) == 1.0
    assert attempts.wait_s("a", 12.0) == 0.0


def test_who_gets_in_starts_afresh_and_so_does_who_stays_away():
    attempts = Attempts(free=1)
    attempts.failed("a", 0.0)
    attempts.succeeded("a")
    assert attempts.wait_s("a", 0.1) == 0.0
    for _ in range(9):
        attempts.failed("a", 0.0)
    assert attempts.wait_s("a", 1.0) > 0
    assert attempts.wait_s("a", FORGET_S + 1) == 0.0


def test_others_are_not_punished():
    attempts = Attempts(free=1)
    attempts.failed("a", 0.0)
    assert attempts.wait_s("b", 0.0) == 0.0


def test_a_flood_of_addresses_is_bounded():
    attempts = Attempts(free=1)
    for number in range(MANY + 5):
        attempts.failed(str(number), 0.0)
    assert attempts.wait_s("0", 0.0) == 0.0
    assert attempts.wait_s(str(MANY + 4), 0.0) > 0
