"""Counts of distinct outcomes: right where they are known, and limits that hold over repeated sampling."""

from __future__ import annotations

import numpy as np
import pytest

from elicitable.diagnosis.distinct import distinct
from elicitable.errors import InputError


def test_the_whole_population_is_counted_and_nothing_is_estimated() -> None:
    found = distinct(["a", "b", "b", "c", "c", "c"], population=6)
    assert (found.sampled, found.distinct, found.singletons, found.pairs) == (6, 3, 1, 1)
    assert {found.at_least, found.at_most, found.low, found.high} == {3.0}


def test_the_estimates_are_the_formulas() -> None:
    found = distinct([0, 0, 1, 1, 2, 3, 4, 5], population=20)  # f1 = 4, f2 = 2, D = 6, q = 8/20
    assert found.at_least == pytest.approx(6 + 4**2 / (2 * 2 * 8 / 7 + 4 * (8 / 20) / (12 / 20)), rel=1e-12)
    assert found.at_most == 6 + 12 * 4 / 8


def test_a_sample_without_repeats_or_with_one_outcome_still_has_an_interval() -> None:
    new, same = distinct(range(100), population=1000), distinct([7] * 100, population=1000)
    assert new.at_least == new.at_most == new.high == 1000
    assert 100 < new.low < 1000
    assert same.at_least == same.at_most == same.low == 1
    assert 1 < same.high < 1000
    assert new.share_low < new.share_high == 1.0


POPULATIONS = {
    "all distinct": np.arange(5000),
    "a tenth in pairs": np.r_[np.arange(4500), np.arange(500)],
    "half in one": np.r_[np.zeros(2500, int), np.arange(1, 2501)],
    "Zipf": np.random.default_rng(1).zipf(1.5, 5000),
    "uniform": np.random.default_rng(2).integers(2000, size=5000),
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_the_limits_hold_in_at_least_nineteen_of_twenty_samples(name: str) -> None:
    population = POPULATIONS[name]
    rng = np.random.default_rng(0)
    samples = [distinct(rng.permutation(population)[:400].tolist(), len(population)) for _ in range(200)]
    true = len(set(population.tolist()))
    # 200 samples of a 95 % event: fewer than 180 would happen once in 300 times; the limits are wider than that
    assert sum(one.low <= true <= one.high for one in samples) >= 190
    mean = np.mean([one.share for one in samples])
    assert sum(one.share_low <= mean <= one.share_high for one in samples) >= 180


def test_a_sample_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="between 1 and 2 items of a population of 2, got 3"):
        distinct([1, 2, 3], population=2)
    with pytest.raises(InputError, match="got 0"):
        distinct([], population=2)
