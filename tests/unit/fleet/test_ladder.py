"""The recovery ladder's decisions, as a table, and the command that cuts power."""

import sys

import pytest

from fieldstation.fleet.ladder import Budgets, Rung, Tried, next_rung, pause_s
from fieldstation.fleet.power import Place, PowerCycleError, PowerHook, command_for, usb_place
from fieldstation.fleet.states.care import Care, CareSettings

R, F, P, Q = Rung.RETRY, Rung.REFLASH, Rung.POWER_CYCLE, Rung.QUARANTINE
ALL = {R, F, P}
BUDGETS = Budgets(retries=2, reflashes=1, power_cycles=1, window_s=100)


@pytest.mark.parametrize(
    ("tried", "possible", "expected"),
    [
        ([], ALL, R),
        ([(R, 90)], ALL, R),
        ([(R, 80), (R, 90)], ALL, F),
        ([(R, 80), (R, 85), (F, 90)], ALL, P),
        ([(R, 80), (R, 85), (F, 90), (P, 95)], ALL, Q),
        # What was tried longer ago than the window counts no more.
        ([(R, 0), (R, 85), (F, 90), (P, 95)], ALL, R),
        ([(R, 80), (R, 85), (F, 0), (P, 95)], ALL, F),
        # A rung that cannot be climbed is left out: no hub that switches, no firmware that would answer.
        ([], {F, P}, F),
        ([(F, 90)], {F}, Q),
        ([(F, 90)], {F, P}, P),
        ([], {P}, P),
        ([], set(), Q),
        # A higher rung that was used before does not keep the lower ones from being used again.
        ([(P, 99)], ALL, R),
    ],
)
def test_the_lowest_rung_that_is_possible_and_has_budget_left_is_next(tried, possible, expected):
    assert next_rung([Tried(*one) for one in tried], BUDGETS, 100.0, possible) is expected


def test_a_rung_without_budget_is_never_used():
    assert next_rung([], Budgets(retries=0, reflashes=0, power_cycles=0), 0.0, ALL) is Q


def test_a_board_that_always_recovers_and_always_fails_again_ends_in_quarantine():
    care = Care("S", CareSettings(Budgets(2, 3, 2, window_s=1e9)), clock=lambda: 0.0)
    seen = []
    while (rung := care.next({R, F})) is not Q:
        care.try_rung(rung, "")
        care.ready()
        seen.append(rung)
    assert seen == [R, R, F, F, F]
    care.put_back()
    assert care.next({R, F}) is R


def test_the_pause_doubles_up_to_a_limit():
    assert [pause_s(30, failures) for failures in (1, 2, 3, 5, 6, 10_000)] == [30, 60, 120, 480, 600, 600]


@pytest.mark.parametrize(
    ("devpath", "place"),
    [
        ("/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4.2/1-4.2:1.0/tty/ttyACM0", Place("1-4", "2")),
        ("/devices/pci0000:00/usb3/3-1/3-1.4/3-1.4.3/3-1.4.3:1.0/host6/block/sda/sda1", Place("3-1.4", "3")),
        ("/devices/pci0000:00/0000:00:14.0/usb2/2-5/2-5:1.0/tty/ttyACM1", Place("2", "5")),
        ("/devices/virtual/tty/tty1", None),
        ("", None),
    ],
)
def test_hub_and_port_are_read_from_the_kernels_path(devpath, place):
    assert usb_place(devpath) == place


def test_placeholders_are_filled_in_once_and_a_missing_place_makes_no_command():
    template = ["uhubctl", "-l", "{location}", "-p", "{port}", "--note={serial}"]
    assert command_for(template, "{port}", Place("1-4", "2")) == ["uhubctl", "-l", "1-4", "-p", "2", "--note={port}"]
    assert command_for(template, "S", None) is None
    assert command_for(["cycle", "{serial}"], "S", None) == ["cycle", "S"]
    assert PowerHook(["x", "{port}"], places={"S": Place("1", "7")}).can("S", None)


def script(text):
    return [sys.executable, "-c", text, "{serial}"]


async def test_a_power_command_that_fails_or_hangs_is_one_sentence_with_what_it_said():
    assert (await PowerHook(script("import sys; print(sys.argv)")).cycle("S", None)).endswith("S")
    with pytest.raises(PowerCycleError, match=r"ended with code 3: no such hub"):
        await PowerHook(script("print('no such hub'); raise SystemExit(3)")).cycle("S", None)
    with pytest.raises(PowerCycleError, match=r"did not end within 0\.2 s"):
        await PowerHook(script("import time; time.sleep(60)"), timeout_s=0.2).cycle("S", None)
    with pytest.raises(PowerCycleError, match="No such file"):
        await PowerHook(["/nonexistent/uhubctl"]).cycle("S", None)
    with pytest.raises(PowerCycleError, match="not known"):
        await PowerHook(["x", "{port}"]).cycle("S", None)
