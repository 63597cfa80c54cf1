"""Waveforms are sampled."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fieldstation.fleet import VarMaxClient

pytestmark = pytest.mark.timeout(600)


def test_every_board_takes_500_samples_of_12_bits_and_their_variance_follows_from_them(
    sampler: VarMaxClient, divider: Path
) -> None:
    results = list(sampler.evaluateBitstreams([divider]))
    assert sorted(result.serial for result in results) == sorted(sampler.getSerials())
    for result in results:
        variance, samples = result.value
        assert len(samples) == 500
        assert all(0 <= sample <= 4095 for sample in samples)
        steps = [abs(after - before) for before, after in itertools.pairwise(samples)]
        assert variance == pytest.approx(sum(steps) / len(samples))
