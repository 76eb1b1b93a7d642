"""Curves over training rows: the fit finds a curve that is there, and says what more rows bring and where two cross."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from elicitable.diagnosis.intervals import interval
from elicitable.diagnosis.rows import crossing, fitted, grow
from elicitable.diagnosis.shares import tango
from elicitable.errors import InputError

ROWS = np.array([16.0, 64.0, 256.0, 1024.0])


@settings(max_examples=60, deadline=None)
@given(limit=st.floats(0.3, 1.0), amount=st.floats(0.0, 3.0), power=st.sampled_from([0.3, 0.5, 1.0, 1.5]))
def test_a_curve_without_noise_is_found_again(limit: float, amount: float, power: float) -> None:
    scores = limit - amount * ROWS**-power
    found = fitted(ROWS, scores[None])[0]
    ahead = np.array([4096.0])
    said = found[0] - found[1] * ahead ** -found[2]
    # squares of misses below 1e-8 are rounding, so two powers may fit a curve that flat equally well
    assert said == pytest.approx(limit - amount * ahead**-power, abs=1e-7)


def test_the_fit_is_scipys_where_that_one_is_free_to_choose_the_power() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        scores = 0.8 - 1.5 * ROWS**-0.6 + rng.normal(0, 0.01, len(ROWS))
        limit, amount, power = fitted(ROWS, scores[None])[0]
        best, _ = curve_fit(lambda n, c, a, b: c - a * n**-b, ROWS, scores, p0=(0.8, 1.0, 0.5), maxfev=20_000)
        own = ((limit - amount * ROWS**-power - scores) ** 2).sum()
        least = ((best[0] - best[1] * ROWS ** -best[2] - scores) ** 2).sum()
        assert least - 1e-12 <= own <= least + 2e-4  # the power lies on a grid of tenths


def test_a_limit_above_the_highest_score_is_not_believed() -> None:
    rising = np.array([[0.1, 0.4, 0.8, 0.99]])
    assert fitted(ROWS, rising)[0, 0] <= 1.0
    falling = fitted(ROWS, rising[:, ::-1])[0]
    assert falling[1] == 0.0  # more rows are never said to make it worse


def outcomes(share: float, items: int = 400) -> tuple[tuple[int, ...], ...]:
    right = round(share * items)
    return ((1,) * right + (0,) * (items - right),)


def test_where_weights_overtake_a_context_lies_in_its_interval_and_more_rows_bring_what_the_curve_says() -> None:
    context = {int(n): outcomes(0.80 - 0.5 * n**-0.5) for n in ROWS}
    weights = {int(n): outcomes(0.92 - 2.0 * n**-0.5) for n in ROWS}
    arms = {"kv-prefix": context, "lora": weights}
    found = crossing(arms, "kv-prefix", "lora", seed=0)
    true = ((2.0 - 0.5) / 0.12) ** 2  # 0.12 = (2.0 − 0.5) · n^−0.5
    assert found.share > 0.95
    assert found.rows is not None
    assert found.rows.low <= true <= found.rows.high
    assert found.rows.mean == pytest.approx(true, rel=0.2)
    back = crossing(arms, "lora", "kv-prefix", seed=0)
    assert back.share < 0.05
    growth = {one.method: one for one in grow(arms, seed=0)}["lora"]
    expected = 2.0 * (1024**-0.5 - 1224**-0.5)
    assert growth.gain.low <= expected <= growth.gain.high
    assert growth.scores[1024].mean == pytest.approx(0.92 - 2.0 / 32, abs=2e-3)
    assert set(growth.scores) == {16, 64, 256, 1024}
    assert max(growth.curve) == 4096
    assert all(one.low <= one.mean <= one.high for one in growth.curve.values())


def test_scores_have_the_intervals_of_the_race_and_equal_answers_leave_a_gain_open() -> None:
    """A score of 1 had an interval of no width, and so had the gain of labels that changed no answer of 20."""
    arm = {16: outcomes(1.0, 20), 64: outcomes(1.0, 20)}
    [found] = grow({"lora": arm}, seed=0, next_rows=100)
    low, high = interval(arm[64], 0)
    assert (found.scores[64].mean, found.scores[64].low, found.scores[64].high) == (1.0, low, high)
    assert low < 0.9
    assert (found.gain.mean, found.gain.low, found.gain.high) == (0.0, 0.0, tango(0, 0, 20)[1])


def test_one_number_of_rows_is_no_curve() -> None:
    with pytest.raises(InputError, match="at least two numbers of rows"):
        grow({"lora": {16: outcomes(0.5)}}, seed=0)
