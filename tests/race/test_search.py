"""Choosing among candidates: the best wins, the passes are what is said, and no item is read twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from elicitable.methods.base import Adaptation
from elicitable.methods.search import Offer, Search
from elicitable.race.search import FINALISTS, FIRST_LOOK, Choosing, Purse
from elicitable.values import Item, Score

ITEMS = [Item((n,), (n,)) for n in range(64)]


class Ladder:
    """A candidate of quality q is right on the first q of every eight items; every reading is counted."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.read: Counter[tuple[int, int]] = Counter()
        self.seconds = seconds

    def score(self, candidate: Adaptation, items: Sequence[Item]) -> Score:
        time.sleep(self.seconds * len(items))
        quality = candidate.setting["quality"]
        places = [item.prompt[0] for item in items]
        self.read.update((id(candidate), place) for place in places)
        return Score(tuple(int(place % 8 < quality) for place in places), 8.0 - quality)


def candidates(*qualities: int) -> list[Adaptation]:
    return [Adaptation(quality=quality) for quality in qualities]


def offers(*rounds: Sequence[int], told: list[Any] | None = None) -> Search:
    for nth, qualities in enumerate(rounds):
        found = yield Offer(candidates(*qualities), f"round {nth}")
        if told is not None:
            told.append([one.adaptation.setting["quality"] for one in found.best])


def choosing(ladder: Ladder, passes: int = 10_000, deadline: float = float("inf")) -> Choosing:
    return Choosing(ladder.score, ITEMS, Purse(passes, deadline))


def test_the_best_wins_on_the_whole_split_and_no_item_is_read_twice() -> None:
    ladder, told = Ladder(), []
    one = choosing(ladder)
    assert one.run(offers((1, 2, 3, 2, 1, 5, 0, 2, 3, 4), (2, 6, 1), told=told)) == "all candidates tried"
    best = one.best[0]
    assert (best.adaptation.setting["quality"], best.items, best.score, best.origin) == (6, 64, 6 / 8, "round 1")
    assert told[0][0] == 5
    assert told[1][0] == 6
    assert max(ladder.read.values()) == 1
    effort = one.effort()
    assert effort.passes == sum(ladder.read.values()) < 13 * 64
    assert (effort.candidates, effort.offered, effort.items, effort.best) == (13, 13, 64, 0.75)
    assert effort.origins == {"round 1": (3, 0.75), "round 0": (10, 0.625)}


def test_who_is_clearly_behind_is_not_read_to_the_end() -> None:
    ladder = Ladder()
    one = choosing(ladder)
    one.run(offers((8, *[0] * 20)))
    assert one.effort().passes == 64 + 20 * FIRST_LOOK
    assert [tried.items for tried in one.best] == [64, *[FIRST_LOOK] * 20]


def test_equally_good_ones_are_told_apart_on_all_items() -> None:
    ladder = Ladder()
    one = choosing(ladder)
    one.run(offers([4] * 12))
    assert sum(tried.items == 64 for tried in one.best) == FINALISTS + 1


@pytest.mark.parametrize("passes", [1, 64, 100, 200, 400, 700, 1_500])
def test_the_passes_are_not_overdrawn_but_for_the_first_candidate(passes: int) -> None:
    ladder = Ladder()
    one = choosing(ladder, passes)
    stopped = one.run(offers(range(8), range(8), range(8), [8] * 20))
    assert sum(ladder.read.values()) <= max(64, passes)
    assert one.effort().items == 64  # the one that is taken, however little there was
    assert stopped == ("passes" if one.effort().candidates < 44 else "all candidates tried")


def test_a_deadline_ends_it_and_is_kept() -> None:
    ladder = Ladder(seconds=1e-3)
    started = time.monotonic()
    one = choosing(ladder, deadline=started + 0.3)
    assert one.run(offers(*[range(8)] * 50)) == "time"
    assert time.monotonic() - started < 2.0  # of 6.4: a candidate that was begun is finished
    assert 1 <= one.effort().candidates < 400


def test_who_is_ahead_when_the_time_runs_out_is_scored_on_the_whole_split() -> None:
    """The first candidate alone was, and is bad: what was seen of the others must not be lost."""
    ladder = Ladder()
    one = choosing(ladder, deadline=time.monotonic() + 1e6)

    def score(candidate: Adaptation, items: Sequence[Item]) -> Score:
        if one.purse.spent >= 64 + 3 * FIRST_LOOK:
            one.purse.deadline = time.monotonic()
        return ladder.score(candidate, items)

    one._score = score
    assert one.run(offers((1, 2, 8, 3, 4), (5,))) == "time"
    best = one.best[0]
    assert (best.adaptation.setting["quality"], best.items) == (8, 64)
    assert max(ladder.read.values()) == 1


def test_without_candidates_there_is_no_best() -> None:
    one = choosing(Ladder())
    one.run(offers([]))
    assert one.best == []


def test_slopes_are_paid_for() -> None:
    def asks() -> Search:
        found = yield Offer(candidates(3))
        assert found.slopes(found.best[0].adaptation).shape == (1, 1)

    one = Choosing(Ladder().score, ITEMS, Purse(10_000), lambda candidate: (torch.zeros(1, 1), 5))
    one.run(asks())
    assert one.effort().passes == 64 + 15


@pytest.mark.parametrize(("passes", "whole"), [(60, 20), (350, 20), (500, 30), (4_000, 64)])
def test_items_beyond_the_least_are_used_as_far_as_they_can_be_paid_many_times(passes: int, whole: int) -> None:
    """(passes − 20) / 16 items, rounded down, between the 20 that are always used and the 64 there are."""
    ladder = Ladder()
    one = Choosing(ladder.score, ITEMS, Purse(passes), least=20)
    one.run(offers((1, 2, 3)))
    assert len(one.items) == one.best[0].items == one.effort().items == whole
    assert max(ladder.read.values()) == 1
    assert one.effort().passes <= passes


def test_little_time_leaves_the_choice_to_the_least_items() -> None:
    """At a hundredth of a second an item, a second pays for 80 items after the first 20: five for each look."""
    one = Choosing(Ladder(0.01).score, ITEMS, Purse(10_000, time.monotonic() + 1.0), least=20)
    one.run(offers((1, 2, 3)))
    assert len(one.items) == 20
