"""Which of several rates is the best: by the score as far as its items can tell, then by the loss."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitable.race.ranking import best_first

Looks = dict[int, tuple[float, float]]
looks = st.dictionaries(
    st.integers(0, 9),
    st.tuples(st.integers(0, 64).map(lambda right: right / 64), st.floats(0, 50) | st.just(math.inf)),
    min_size=1,
)


@given(looks)
def test_every_run_has_its_place_once_and_a_better_one_in_both_is_never_behind(found: Looks) -> None:
    order = best_first(found, 64)
    assert sorted(order) == sorted(found)
    score, loss = found[order[0]]
    assert not any(one > score and other < loss and one >= 0.05 for one, other in found.values())


@given(looks, st.integers(1, 64))
def test_what_the_items_tell_apart_is_decided_by_the_score(found: Looks, items: int) -> None:
    best = max(score for score, _ in found.values())
    score, loss = found[best_first(found, items)[0]]
    if best >= 0.05:
        error = math.sqrt(best * (1 - best) / items)
        assert best - score <= error + 1e-12
        assert loss == min(nats for one, nats in found.values() if one >= best - error)
    else:
        assert loss == min(nats for _, nats in found.values())


def test_a_rate_that_has_two_lucky_items_more_is_not_taken_for_them() -> None:
    """Seen on SmolLM2: 28 of 64 right at a rate of 0.3, 26 at 0.03, whose loss was a third lower."""
    seen = {0.01: (27 / 64, 1.284), 0.03: (26 / 64, 0.479), 0.1: (22 / 64, 0.598), 0.3: (28 / 64, 0.686)}
    assert best_first(seen, 64)[0] == 0.03
    assert best_first(seen, 64 * 100)[0] == 0.3


@pytest.mark.parametrize("score", [0.0, 0.04])
def test_scores_of_few_lucky_items_count_as_none(score: float) -> None:
    found = {"lucky": (score, 2.0), "not": (0.0, 1.0), "telling": (0.05, 3.0)}
    assert best_first(found, 64) == ["telling", "not", "lucky"]
