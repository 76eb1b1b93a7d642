"""Intervals against every resample there is, for samples small enough to list them."""

from __future__ import annotations

import importlib.util
import sys
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest

from elicitable.diagnosis.intervals import (
    REPLICATES,
    Outcomes,
    gap,
    interval,
    percentile_gap,
    percentile_interval,
    replicates,
)
from elicitable.diagnosis.shares import tango, wilson
from elicitable.errors import InputError
from elicitable.scores.classification import MCC
from elicitable.scores.exact_match import ExactMatch

BENCHMARK = importlib.util.spec_from_file_location(
    "interval_coverage", Path(__file__).parents[2] / "benchmarks" / "coverage.py"
)
assert BENCHMARK is not None
benchmark = importlib.util.module_from_spec(BENCHMARK)
sys.modules[BENCHMARK.name] = benchmark
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # what it has beside it
BENCHMARK.loader.exec_module(benchmark)

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
    mean, low, high = percentile_gap(best, other, seed=0)
    assert mean == gap(best, other, seed=0)[0] == 0.25
    assert (low, high) == (np.quantile(exact, 0.025), np.quantile(exact, 0.975)) == (0.0, 0.75)
    assert percentile_gap(best, best, seed=0) == (0.0, 0.0, 0.0)


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


# What the paper's tables rest on: percentiles, of plain outcomes without groups.
FROZEN = {
    (40, 1): ((0.6804970794560756, 0.925), (0.19999999999999996, 0.0, 0.4)),
    (333, 3): (
        (0.6125875875875877, 0.7537537537537538),
        (0.10010010010010018, 0.016991991991991928, 0.17917917917917925),
    ),
}


def made_up(items: int, seeds: int) -> tuple[Outcomes, Outcomes]:
    rng = np.random.default_rng(items)
    return tuple(
        tuple(tuple((rng.random(items) < share).astype(int).tolist()) for _ in range(seeds)) for share in (0.7, 0.6)
    )


@pytest.mark.parametrize("shape", FROZEN)
def test_plain_outcomes_keep_their_bits(shape: tuple[int, int]) -> None:
    best, other = made_up(*shape)
    assert (percentile_interval(best, 0), percentile_gap(best, other, 0)) == FROZEN[shape]


def test_a_group_of_its_own_for_every_item_changes_no_draw() -> None:
    best, other = made_up(40, 2)
    arms = {"best": best, "other": other}
    apart = replicates(arms, 0, groups=[f"text {i}" for i in range(40)])
    for name, means in replicates(arms, 0).items():
        assert (apart[name] == means).all()


@pytest.mark.parametrize("groups", ["aab", "abcc", "abba"])
def test_groups_are_drawn_together(groups: str) -> None:
    table = np.array([[1, 0, 0, 1], [1, 1, 0, 0]], dtype=float)[:, : len(groups)]
    names = sorted(set(groups))
    members = [[i for i, group in enumerate(groups) if group == name] for name in names]
    exact = []
    for drawn in product(members, repeat=len(names)):
        for seeds in product(range(2), repeat=2):
            exact.append(table[np.ix_(seeds, [*chain(*drawn)])].mean())
    outcomes = tuple(tuple(map(int, row)) for row in table)
    found = distribution(replicates({"arm": outcomes}, 0, count=20_000, groups=groups)["arm"])
    assert set(found) == set(distribution(np.array(exact)))
    for value, share in distribution(np.array(exact)).items():
        assert found[value] == pytest.approx(share, abs=SAMPLING / 2)


def test_copies_of_items_say_no_more_than_the_items() -> None:
    """51 rows of which 17 are distinct: the interval is that of 17, not of 51."""
    once = ((1,) * 12 + (0,) * 5,)
    thrice = (once[0] * 3,)
    groups = tuple(range(17)) * 3
    assert replicates({"a": thrice}, 0, groups=groups)["a"] == pytest.approx(replicates({"a": once}, 0)["a"])
    widths = [high - low for low, high in (interval(thrice, 0), interval(thrice, 0, groups), interval(once, 0))]
    assert widths[0] < 0.65 * widths[2]
    assert widths[1] >= widths[2]


def test_equal_outcomes_count_their_groups() -> None:
    assert interval(((1,) * 51,), 0, tuple(range(17)) * 3) == pytest.approx(wilson(1.0, 17))
    assert interval(((1,) * 4,), 0, "aaab") == pytest.approx(wilson(1.0, 16 / 10))
    assert interval(((0,) * 9,), 0, "a" * 9) == pytest.approx(wilson(0.0, 1))


def test_groups_that_say_nothing_cost_nothing() -> None:
    """Independent outcomes in groups of four are as good as independent items."""
    rng = np.random.default_rng(5)
    outcomes = (tuple((rng.random(400) < 0.8).astype(int).tolist()),)
    (low, high), (grouped_low, grouped_high) = interval(outcomes, 0), interval(outcomes, 0, tuple(range(100)) * 4)
    assert grouped_high - grouped_low == pytest.approx(high - low, rel=0.25)  # a variance of 100 groups is off by 14 %


def test_any_score_is_drawn_with_the_same_items_and_seeds_as_a_share() -> None:
    best, other = made_up(40, 3)
    texts = [["right" if hit else "wrong" for hit in outcomes] for outcomes in best]
    scores = [ExactMatch().scored(["right"] * 40, answers) for answers in texts]
    assert (replicates({"a": scores}, 1)["a"] == replicates({"a": best}, 1)["a"]).all()
    assert interval(scores, 1) == pytest.approx(interval(best, 1), abs=1e-12)
    assert gap(scores, other, 1) == pytest.approx(gap(best, other, 1), abs=1e-12)


def test_a_score_without_any_spread_has_the_width_that_n_allows() -> None:
    labels = ("a", "b")
    targets = ["a", "b"] * 50
    assert interval([MCC(labels).scored(targets, targets)], 0)[0] == pytest.approx(2 * wilson(1.0, 100)[0] - 1)
    low, high = interval([MCC(labels).scored(targets, ["a"] * 100)], 0)
    assert (low, high) == pytest.approx((-0.19, 0.19), abs=0.01)  # 1.96/√100, the correlation's own
    perfect = [MCC(labels).scored(targets, targets)]
    assert gap(perfect, perfect, 0) == pytest.approx((0.0, *(2 * limit for limit in tango(0, 0, 100))))


def test_groups_name_every_item() -> None:
    with pytest.raises(InputError, match="3 items, but 2 groups"):
        interval(((1, 0, 1),), 0, "ab")


@pytest.mark.parametrize("name", ["accuracy 0.70", "macro-f1 0.85", "mcc 0.85", "chrf"])
@pytest.mark.parametrize(("items", "copies"), [(60, 1), (60, 3)])
def test_intervals_of_every_kind_cover_the_truth(name: str, items: int, copies: int) -> None:
    case = next(case for case in benchmark.CASES if case.name == name)
    assert (
        benchmark.coverage(case, items, copies, samples=40)["covered"] >= 85
    )  # 95 − 10 points: 3.5 standard errors of 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy 0.70", "macro-f1 0.85", "mcc 0.85", "chrf", "token-f1"])
@pytest.mark.parametrize(("items", "copies"), [(60, 1), (250, 1), (500, 1), (60, 3)])
def test_coverage_is_what_the_interval_says(name: str, items: int, copies: int) -> None:
    case = next(case for case in benchmark.CASES if case.name == name)
    assert (
        92 <= benchmark.coverage(case, items, copies, samples=500, seed=1)["covered"] <= 98
    )  # three standard errors of 500
