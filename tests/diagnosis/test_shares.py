"""Score intervals for shares against the tests that they invert, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from elicitable.diagnosis.intervals import gap, interval
from elicitable.diagnosis.shares import kish, share_gap, share_interval, tango, wilson


@pytest.mark.parametrize(("first", "second", "n"), [(12, 2, 50), (3, 0, 60), (0, 0, 200), (1, 4, 30), (40, 35, 500)])
def test_tangos_limits_are_the_differences_that_a_score_test_just_accepts(first: int, second: int, n: int) -> None:
    """The likeliest chances under each limit are searched for here, and not computed from its equation."""
    for limit in tango(first, second, n):
        assert -1.0 < limit < 1.0

        def unlikely(only_second: float, limit: float = limit) -> float:
            chances = (only_second + limit, only_second, 1 - limit - 2 * only_second)
            counted = zip((first, second, n - first - second), chances, strict=True)
            return -sum(count * np.log(max(chance, 1e-300)) for count, chance in counted if count)

        found = minimize_scalar(
            unlikely, bounds=(max(0.0, -limit), (1 - limit) / 2), method="bounded", options={"xatol": 1e-12}
        )
        variance = n * (2 * found.x + limit * (1 - limit))
        assert abs(first - second - n * limit) / variance**0.5 == pytest.approx(1.96, abs=1e-3)  # as near as a search


def test_arms_of_the_same_answers_differ_by_no_more_than_so_many_items_can_tell() -> None:
    """A bootstrap finds no width here, however few the items: two arms that are equal on 60 are not known to be."""
    same = ((1, 0) * 30,)
    assert gap(same, same, 0) == (0.0, *tango(0, 0, 60))
    assert gap(same, same, 0)[2] == pytest.approx(1.96**2 / (60 + 1.96**2))
    assert gap(same, ((0, 1) * 30,), 0)[1:] == pytest.approx(tango(30, 30, 60))


def test_items_stand_alone_and_in_groups() -> None:
    rng = np.random.default_rng(0)
    best, other = ((rng.random((1, 60)) < share).astype(float) for share in (0.8, 0.7))
    thrice = tuple(np.arange(60)) * 3
    share = float(best.mean())
    assert share_interval(best) == wilson(share, 60)
    assert share_interval(np.tile(best, 3), thrice) == pytest.approx(wilson(share, 60), abs=1e-12)
    assert share_gap(np.tile(best, 3), np.tile(other, 3), thrice) == pytest.approx(share_gap(best, other), abs=1e-9)
    assert interval((tuple(best[0].astype(int)),), 0) == wilson(share, 60)
    assert kish("aaab", 4) == pytest.approx(1.6)


def test_seeds_that_agree_add_nothing_and_seeds_that_differ_do() -> None:
    rng = np.random.default_rng(0)
    once = (rng.random((1, 200)) < 0.7).astype(float)
    twice = np.repeat(once, 2, axis=0)
    assert share_interval(twice) == pytest.approx(share_interval(once))
    torn = np.concatenate([(rng.random((1, 200)) < share).astype(float) for share in (0.9, 0.5)])
    widths = [high - low for low, high in (share_interval(torn), wilson(float(torn.mean()), 200))]
    assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize(("best", "other", "items"), [(0.5, 0.47, 200), (0.95, 0.92, 200), (0.95, 0.92, 60)])
@pytest.mark.parametrize("copies", [1, 3])
def test_the_intervals_hold_the_truth_as_often_as_they_say(best: float, other: float, items: int, copies: int) -> None:
    """The better arm is right wherever the other is, so few pairs differ: percentiles held it in 84 to 93 of 100."""
    rng = np.random.default_rng(items)
    groups = tuple(np.repeat(np.arange(items), copies).tolist()) if copies > 1 else ()
    held = np.zeros(2)
    for luck in rng.random((1000, items)):
        arms = [np.repeat(luck < share, copies)[None].astype(float) for share in (best, other)]
        (low, high), (least, most) = share_interval(arms[0], groups), share_gap(*arms, groups)
        held += [low <= best <= high, least - 1e-12 <= best - other <= most + 1e-12]
    for share in held / 1000:  # 95 of 100, give or take three standard errors; two pairs that differ cannot do it finer
        assert 0.93 <= share <= (0.97 if items > 60 else 0.998)
