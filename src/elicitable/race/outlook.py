"""What an arm may still come to: a lower bound by what it has, an upper one by where its learning curve leads.

A curve is extrapolated by the steepest of the last two doublings of its steps. A score rises by as many points again in
each of two more. A loss falls by as many times again (a power law of the steps) in every doubling that the arm is owed,
and in two more for the way down; the arm is granted whatever any arm of the race ever scored at a loss that is no lower
than the one foreseen. A score alone says too little: where all of an answer has to be right it stays nothing for
hundreds of steps, and comes at once. For the same reason a loss that still falls by a fifth in a doubling may lead
anywhere, until the arm has had what it is owed: it may fall faster and faster. Looks count answers that are right, so
where a race scores otherwise (ROUGE-L, macro-F1) no curve bounds an arm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from elicitable.diagnosis.shares import wilson
from elicitable.diagnosis.verdict import OWED, SHARE

if TYPE_CHECKING:
    from elicitable.race.entry import Entry, Race

SOLVED = 0.98  # of the validation items
MOST = 0.9  # of all items are solved too, by the lower limit of an interval: a few items that are right are luck
SURE = 0.05  # nats a token, or less: then a few items are enough, as each is answered without a doubt
EARLIEST = 128  # steps before which a curve says nothing of where it leads
AHEAD = 2  # doublings of the steps in which a score rises on
WAY_DOWN = 2  # doublings of the steps that the way down is worth to a loss: it fell to a third
FALLING = 0.8  # times a loss in a doubling, or less: nobody knows where that ends
PATIENCE = 4 * OWED  # steps after which that is no reason to wait, where no arm has solved the task
TELLING = 0.05  # a validation score below it is a few lucky items
FLAT_SCORE, FLAT_LOSS = 0.01, 0.95  # a doubling that brings less than a point and 5 % of the loss brings nothing


@dataclass(frozen=True)
class Mark:
    """One look at a run: after so many steps, the best score on validation so far, and its loss in nats a token."""

    steps: int
    score: float
    nats: float


def marks(entry: Entry) -> list[Mark]:
    """Return the looks at an arm's run at the end of each leg."""
    legs = entry.line.legs if entry.line is not None else []
    return [
        Mark(record.steps, record.validation or 0.0, _or_infinite(record.validation_loss_nats))
        for _, record in legs
        if record.is_ok
    ]


def _or_infinite(nats: float | None) -> float:
    """Return a loss; where it was no number, and so is kept as None, the worst there is."""
    return math.inf if nats is None else nats


def ceiling(entry: Entry, race: Race, everyone: Sequence[Mark]) -> float:
    """Return the score that an arm may reach at most: the highest there is while its curve is too short to tell.

    ``everyone`` are the looks at all arms, by which a loss is worth a score.
    """
    if not race.marking.is_as_looked_at:
        return race.marking.scorer.highest
    own = marks(entry)
    pairs = _doublings(own)
    if len(pairs) < 2 or own[-1].steps < min(EARLIEST, longest(race) // 2):
        return 1.0
    last = own[-1]
    rise = max(0.0, *(after.score - before.score for before, after in pairs))
    fall = min([1.0, *(after.nats / before.nats for before, after in pairs if 0 < before.nats < math.inf)])
    if fall <= FALLING and last.steps < min(owed(race), PATIENCE):
        return 1.0
    foreseen = last.nats * fall ** (WAY_DOWN + max(0.0, math.log2(owed(race) / last.steps)))
    granted = max((one.score for one in everyone if one.nats >= foreseen), default=0.0)
    reached = wilson(last.score, race.items_looked_at())[1] + AHEAD * rise
    return min(1.0, max(reached, granted))


def floor_of(entry: Entry, race: Race) -> float:
    """Return the score that an arm has already: the lower limit of its interval on validation."""
    if not race.marking.is_as_looked_at:
        return race.marking.scorer.lowest
    own = marks(entry)
    return wilson(own[-1].score, race.items_looked_at())[0] if own else 0.0


def _doublings(own: Sequence[Mark]) -> list[tuple[Mark, Mark]]:
    """Return the last two pairs of looks between which the steps have doubled, as nearly as there were looks."""
    chain = list(own[-1:])
    while len(chain) < 3 and (before := [mark for mark in own if 2 * mark.steps <= chain[0].steps]):
        chain.insert(0, before[-1])
    return list(pairwise(chain))


def is_solved(entry: Entry, race: Race) -> bool:
    """Say whether an arm gets nearly all validation items right, and they are many, or it is sure of them."""
    own = marks(entry)
    if not own or own[-1].score < SOLVED:
        return False
    return own[-1].nats <= SURE or wilson(own[-1].score, race.items_looked_at())[0] >= MOST


def is_flat(entry: Entry, race: Race) -> bool:
    """Say whether the last doubling, of at least the pace's patience, improved neither the score nor the loss."""
    own = marks(entry)
    if not (pairs := _doublings(own)):
        return False
    before, after = pairs[-1]
    if after.steps - before.steps < race.pace.patience_steps // 2:
        return False
    return after.score < before.score + FLAT_SCORE and after.nats > FLAT_LOSS * before.nats


def longest(race: Race) -> int:
    """Return the steps at the constant rate after which the last third, the way down, has to begin."""
    return max(1, round(race.pace.steps * 2 / 3))


def owed(race: Race) -> int:
    """Return the steps at the constant rate that every arm is owed: twice those of the quickest that solved it."""
    if race.quickest is None:
        return longest(race)
    return min(longest(race), max(OWED, SHARE * race.quickest))


def next_mark(race: Race, steps: int) -> int:
    """Return how many steps a run has at its next look: twice as many; against the clock half of that way first.

    The marks are the same under every limit, so that a longer one finds the legs of a shorter one.
    """
    if steps < race.pace.first_steps:
        return min(max(2 * steps, 4), race.pace.first_steps, longest(race))
    is_half_way = steps & (steps - 1) != 0
    further = steps if race.time_limit is None else steps // 3 if is_half_way else steps // 2
    return min(steps + max(1, further), longest(race))
