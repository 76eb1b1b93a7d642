"""Intervals against every resample there is, for samples small enough to list them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from elicitable.diagnosis.intervals import REPLICATES, gap, interval, replicates, wilson

# A share estimated from 4,000 replicates has a standard error of at most 0.5/√4000 = 0.008; five of them:
SAMPLING = 0.04


def every_resample(items: int, seeds: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(product(product(range(items), repeat=items), product(range(seeds), repeat=seeds)))


def distribution(values: np.ndarray) -> dict[float, float]:
    found, counts = np.unique(values.round(9), return_counts=True)
    return dict(zip(found.tolist(), (counts / counts.sum()).tolist(), strict=True))


@pytest.mark.parametrize("outcomes", [((1, 0, 0),), ((1, 1, 0, 0),), ((1, 0, 1), (0, 0, 1)), ((1, 1, 1), (0, 0, 0))])
def test_replicates_have_the_distribution_of_all_resamples_of_items_and_seeds(
    outcomes: tuple[tuple[int, ...], ...],
) -> None:
    table = np.array(outcomes, dtype=float)
    exact = distribution(
        np.array([table[np.ix_(seeds, items)].mean() for items, seeds in every_resample(table.shape[1], len(table))])
    )
    drawn = distribution(replicates({"arm": outcomes}, seed=0, count=20_000)["arm"])
    assert set(drawn) == set(exact)
    for value, share in exact.items():
        assert drawn[value] == pytest.approx(share, abs=SAMPLING / 2)  # five times as many replicates


def test_a_gap_is_in_pairs_over_items() -> None:
    best, other = ((1, 1, 0, 1),), ((1, 0, 0, 1),)
    pairs = np.array(best[0]) - np.array(other[0])
    exact = np.array([pairs[list(items)].mean() for items in product(range(4), repeat=4)])
    mean, low, high = gap(best, other, seed=0)
    assert mean == 0.25
    assert (low, high) == (np.quantile(exact, 0.025), np.quantile(exact, 0.975)) == (0.0, 0.75)
    assert gap(best, best, seed=0) == (0.0, 0.0, 0.0)


def test_the_same_items_are_drawn_for_every_arm_whatever_it_is_called_and_however_many_there_are() -> None:
    rng = np.random.default_rng(0)
    a = tuple(rng.integers(0, 2, 50).tolist())
    means = replicates({"a": (a,), "b": (a,), "c": (tuple(1 - x for x in a),)}, seed=3)
    assert (means["a"] == means["b"]).all()
    assert np.abs(means["a"] + means["c"] - 1).max() < 1e-12  # sums of fifty shares
    assert (replicates({"z": (a,)}, seed=3)["z"] == means["a"]).all()
    assert (replicates({"a": (a,)}, seed=4)["a"] != means["a"]).any()
    assert len(means["a"]) == REPLICATES


def test_seeds_are_drawn_apart_for_every_arm() -> None:
    torn = ((1,) * 20, (0,) * 20)
    means = replicates({"a": torn, "b": torn}, seed=0)
    assert set(means["a"]) == {0.0, 0.5, 1.0}
    assert (means["a"] != means["b"]).mean() > 0.4


def test_equal_outcomes_have_the_width_that_n_allows() -> None:
    assert interval(((1,) * 100,), 0) == pytest.approx(wilson(1.0, 100))
    assert interval(((0,) * 100,), 0) == pytest.approx((0.0, 0.0370), abs=1e-4)
    assert interval(((0,) * 5,), 0)[1] > 0.4


def test_wilson_is_the_share_that_a_z_test_does_not_reject() -> None:
    for share, n in ((0.0, 10), (0.3, 50), (0.5, 7), (1.0, 200)):
        for bound in wilson(share, n):
            if 0.0 < bound < 1.0:
                z = (share - bound) / np.sqrt(bound * (1 - bound) / n)
                assert abs(z) == pytest.approx(1.96, abs=1e-9)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        outcomes = (tuple((rng.random(80) < 0.7).astype(int).tolist()),)
        low, high = interval(outcomes, 0)
        hits += low <= 0.7 <= high
    assert hits >= 180  # 190 expected; 10 below is three standard errors
