"""The table of margins is the decision, at every margin: at its edges to the last bit, and in between."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.random_races import margins_of, race

from elicitable.diagnosis.margins import LARGEST, SMALLEST, flip, stretches
from elicitable.diagnosis.shares import wilson
from elicitable.diagnosis.verdict import Evidence, gather
from elicitable.values import Stretch

from .test_verdict import arm


def assert_equal(evidence: Evidence, table: tuple[Stretch, ...], margin: float) -> None:
    found = max((one for one in table if one.start <= margin), key=lambda one: one.start)
    decision = evidence.decide(margin)
    standings = {one.arm.method: one.standing for one in decision.compared}
    assert (found.label, found.answer, found.standings) == (decision.label, decision.answer, standings)
    assert decision.reasons[0].startswith(found.reason)


def test_the_table_is_the_decision_at_every_margin() -> None:
    labels: Counter[str] = Counter()
    for seed in range(120):
        evidence = race(seed)
        table = stretches(evidence)
        for margin in margins_of(evidence, tuple(one.start for one in table), seed):
            assert_equal(evidence, table, margin)
        labels.update({one.label for one in table})
    assert {"already-there", "prompt", "prefix", "weights", "out-of-reach", "inconclusive"} <= set(labels)


def test_a_stretch_that_is_missing_is_seen() -> None:
    evidence = race(3)
    table = stretches(evidence)
    assert len(table) > 2
    with pytest.raises(AssertionError):
        assert_equal(evidence, (table[0], *table[2:]), table[1].start)


def test_neighbours_decide_otherwise_and_the_first_begins_at_the_smallest_margin() -> None:
    table = stretches(race(4))
    assert table[0].start == SMALLEST
    for one, after in pairwise(table):
        assert one.start < after.start
        assert replace(one, start=after.start) != after


def test_a_few_items_leave_it_open_up_to_half_of_their_upper_limit() -> None:
    """None right in three: the limit is 0.56, and where twice the margin is more, it is near the floor."""
    evidence = gather([arm("zero-shot", 0, items=3), arm("full", 0, items=3)], floor=0.0, seed=0)
    table = stretches(evidence)
    assert [one.label for one in table] == ["inconclusive", "out-of-reach", "out-of-reach"]  # standings change last
    assert 2 * table[1].start == pytest.approx(wilson(0.0, 3)[1])
    for margin in (0.02, 0.2, table[1].start, 0.4):
        assert_equal(evidence, table, margin)


def test_what_may_be_chance_is_open_until_the_margin_reaches_half_of_its_upper_limit() -> None:
    """Seven of twelve: it seems better up to half of what it has above the floor; beyond that, items are too few."""
    evidence = gather([arm("zero-shot", 7, items=12), arm("full", 7, items=12)], floor=0.5, seed=0)
    table = stretches(evidence)
    labels = ["inconclusive", "inconclusive", "out-of-reach", "out-of-reach"]  # standings change last
    assert [one.label for one in table] == labels
    assert "may be no more than always giving one answer" in table[0].reason
    assert 2 * table[1].start == pytest.approx(7 / 12 - 0.5)
    for margin in (0.02, table[1].start, 0.1, table[2].start, 0.4):
        assert_equal(evidence, table, margin)


def test_a_race_in_which_nothing_ran_decides_one_thing() -> None:
    (only,) = stretches(gather([], floor=0.1, seed=0))
    assert (only.start, only.label, only.standings) == (SMALLEST, "inconclusive", {})


@pytest.mark.parametrize("edge", [0.02, 0.1, 1 / 3, SMALLEST * 7, LARGEST])
def test_an_edge_is_found_to_the_last_bit(edge: float) -> None:
    assert flip(lambda margin: margin >= edge) == edge
    assert flip(lambda margin: margin < edge) == edge


def test_a_question_that_never_flips_has_no_edge() -> None:
    assert flip(lambda margin: margin > 2) is None
