"""Boards come back to everybody."""

from __future__ import annotations

import time

import pytest

from fieldstation.fleet import PulseCountClient

pytestmark = pytest.mark.timeout(600)


def test_a_board_that_was_given_back_is_offered_again(url: str, counter: PulseCountClient) -> None:
    serials = counter.getSerials()
    assert sorted(counter.endAll()) == sorted(serials)
    deadline = time.monotonic() + 180
    while missing := set(serials) - set(counter.availableDevices() or []):
        assert time.monotonic() < deadline, f"{missing} did not come back; see `fieldstation fleet devices`"
        time.sleep(0.2)
