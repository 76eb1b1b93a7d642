"""Choose among candidates within a stated number of item-passes and seconds.

A candidate is scored on a few validation items; the better half goes on to twice as many, and so on up to the whole
split (successive halving: Karnin, Koren, Somekh, ICML 2013). No item is read twice for a candidate. Who is clearly
behind the best on the same items, by more than two standard errors of the paired difference, is left out earlier. The
first candidate is always scored on the whole split, so that there is an answer however short the time; and so is
whoever is ahead when the time runs out. Where training rows are set apart to choose by (:mod:`elicitable.tasks.wider`),
the whole split is as many of them as can be paid many times over, which is known once the first candidate was scored.
"""

from __future__ import annotations

import math
import reprlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elicitable.errors import InputError
from elicitable.methods.base import Adaptation
from elicitable.methods.search import Offer, Search, Tried
from elicitable.values import Effort, Item, Score

if TYPE_CHECKING:
    from torch import Tensor

TEXT_PASSES, DIGIT_PASSES = 4_096, 16_384  # by default; a training step of 16 texts costs about as much as 48 passes
FIRST_LOOK, MANY = 16, 64  # items; half of them where more candidates are offered than so many
FINALISTS = 4  # so many of every offer are scored on the whole split, unless they are clearly behind
WHOLE_LOOKS = 16  # at the whole split that have to be affordable before it takes more than the validation items
TWO_ERRORS = 2.0
SLOPE_PASSES = 3  # a backward pass costs about two forward ones

Scoring = Callable[[Adaptation, Sequence[Item]], Score]


@dataclass(eq=False)
class Purse:
    """What is left to spend: item-passes, and seconds up to ``deadline`` at the pace so far."""

    passes: int
    deadline: float = math.inf
    spent: int = 0
    timed: int = 0  # of them, those that are timed, and the seconds that they took
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Item-passes that are still affordable."""
        by_number = self.passes - self.spent
        if math.isinf(self.deadline) or not self.timed:
            return max(0, by_number)
        seconds = max(0.0, self.deadline - time.monotonic())
        return max(0, min(by_number, int(seconds * self.timed / max(self.seconds, 1e-9))))

    @property
    def is_late(self) -> bool:
        """Whether it is time that is short, and not passes."""
        return self.left < self.passes - self.spent

    def pay(self, passes: int, since: float) -> None:
        """Take note of ``passes`` that were made from ``since`` on."""
        self.spent += passes
        self.timed += passes
        self.seconds += time.monotonic() - since


@dataclass(eq=False)
class _Standing:
    """A candidate and what it has scored so far."""

    adaptation: Adaptation
    origin: str
    correct: list[int] = field(default_factory=list)
    nats: float = 0.0  # summed over items

    def tried(self) -> Tried:
        return Tried(self.adaptation, self.origin, tuple(self.correct), self.nats / len(self.correct))


class Choosing:
    """One search: what is tried, how it did, and what is left to spend.

    ``score`` scores a candidate on some items, and ``gradient`` gives the slopes of
    :meth:`elicitable.methods.search.Found.slopes` with the number of items that were read for them. Of ``items`` the
    first ``least`` are always used (all where it is None), the others where they can be paid.
    """

    def __init__(
        self,
        score: Scoring,
        items: Sequence[Item],
        purse: Purse,
        gradient: Callable[[Adaptation], tuple[Tensor, int]] | None = None,
        least: int | None = None,
    ) -> None:
        self.purse, self.items = purse, list(items)
        self.offered = 0
        self._started = time.monotonic()
        self._score, self._gradient = score, gradient
        self._least = len(self.items) if least is None else least
        self._tried: list[_Standing] = []
        self._is_cut = False
        self._price = 1  # of an item, for the candidates that are looked at

    @property
    def best(self) -> list[Tried]:
        """All candidates that were scored, the best first; of equally good ones the one offered first."""
        tried = [one.tried() for one in self._tried if one.correct]
        return sorted(tried, key=lambda one: one.place, reverse=True)

    @property
    def left(self) -> int:
        """Item-passes that are still affordable."""
        return self.purse.left

    @property
    def seconds(self) -> float:
        """How long the search may still take."""
        return max(0.0, self.purse.deadline - time.monotonic())

    def slopes(self, candidate: Adaptation) -> Tensor:
        """Ask for the slopes of ``candidate``, and pay for them."""
        assert self._gradient is not None
        since = time.monotonic()
        slopes, items = self._gradient(candidate)
        self.purse.pay(SLOPE_PASSES * items, since)
        return slopes

    def run(self, search: Search) -> str:
        """Score what ``search`` offers until it has no more, or nothing more can be paid; say in a word why it ended.

        One of ``"all candidates tried"``, ``"time"`` and ``"passes"``.
        """
        offer = next(search, None)
        while offer is not None:
            self._take(offer)
            self._price = 1
            if self.left < self._cost(1, 0):
                break
            try:
                offer = search.send(self)
            except StopIteration:
                offer = None
        is_whole = offer is None and not self._is_cut
        search.close()
        return "all candidates tried" if is_whole else "time" if self.purse.is_late else "passes"

    def _take(self, offer: Offer) -> None:
        """Score an offer: all candidates that are affordable on a few items, the better half on twice as many …"""
        for candidate in offer.candidates:
            if not isinstance(candidate, Adaptation):
                raise InputError(f"a candidate has to be an Adaptation, and is {reprlib.repr(candidate)}.")
        standing = [_Standing(candidate, offer.origin) for candidate in offer.candidates]
        self.offered += len(standing)
        self.purse.spent += offer.passes
        self._price = max((candidate.price for candidate in offer.candidates), default=1)
        if standing and not self._tried:
            self._look(standing[0], self._least)
            self.items = self.items[: max(self._least, self.left // (WHOLE_LOOKS * self._price))]
            self._look(standing[0], len(self.items))
            self._tried.append(standing.pop(0))
        whole = len(self.items)
        items = self._first_look(len(standing))
        kept = self._affordable(standing, items)
        self._tried += kept
        while kept:
            for one in kept:
                self._look(one, items)
            if items == whole:
                return
            items = min(2 * items, whole)
            better = self._better(kept)
            kept = self._affordable(better, items)
            if better and not kept:  # the time was shorter than it looked
                self._settle(better[0])

    def _settle(self, leader: _Standing) -> None:
        """Score ``leader`` on the whole split where nobody who was did as well on the items that it has seen."""
        seen = len(leader.correct)
        whole = [sum(one.correct[:seen]) for one in self._tried if len(one.correct) == len(self.items)]
        if sum(leader.correct) > max(whole, default=-1):
            self._look(leader, len(self.items))

    def _look(self, one: _Standing, items: int) -> None:
        """Score ``one`` on those of the first ``items`` that it has not seen yet."""
        new = self.items[len(one.correct) : items]
        if new:
            since = time.monotonic()
            score = self._score(one.adaptation, new)
            one.correct += score.correct
            one.nats += math.inf if math.isnan(score.loss_nats) else score.loss_nats * len(new)
            self.purse.pay(len(new) * one.adaptation.price, since)

    def _first_look(self, candidates: int) -> int:
        """So many items that at least a few candidates are looked at, where little can be spent."""
        items = min(FIRST_LOOK if candidates <= MANY else FIRST_LOOK // 2, len(self.items))
        return items if self._cost(min(candidates, FINALISTS), 0) <= self.left else max(1, items // 2)

    def _better(self, standing: list[_Standing]) -> list[_Standing]:
        """The better half, best first, and :data:`FINALISTS` at least; without those that are clearly behind."""
        ranked = sorted(standing, key=lambda one: one.tried().place, reverse=True)
        half = ranked[: max(FINALISTS, -(-len(ranked) // 2))]
        seen = len(ranked[0].correct)
        rivals = [one for one in (*self._tried, *ranked) if len(one.correct) >= seen]
        best = max(rivals, key=lambda one: sum(one.correct[:seen]))
        return [one for one in half if not _is_behind(one.correct, best.correct[:seen])]

    def _affordable(self, standing: list[_Standing], items: int) -> list[_Standing]:
        """As many of the first of ``standing`` as can be brought from where they are to a choice."""
        seen = len(standing[0].correct) if standing else 0
        count = len(standing)
        while count and self._cost(count, seen, items) > self.left:
            count -= 1
        self._is_cut = self._is_cut or count < len(standing)
        return standing[:count]

    def _cost(self, candidates: int, seen: int, items: int | None = None) -> int:
        """Passes, at most, that bring ``candidates`` from ``seen`` items over ``items`` to the whole split."""
        whole = len(self.items)
        items = min(FIRST_LOOK, whole) if items is None else items
        cost = candidates * (items - seen)
        while candidates and items < whole:
            more = min(2 * items, whole) - items
            candidates = min(candidates, max(FINALISTS, -(-candidates // 2)))
            cost, items = cost + candidates * more, items + more
        return cost * self._price

    def effort(self) -> Effort:
        """Say what was tried."""
        best = self.best
        origins: dict[str, tuple[float, ...]] = {}
        for one in best:
            count, score = origins.get(one.origin, (0, 0.0))
            origins[one.origin] = (count + 1, max(score, one.score))
        return Effort(
            candidates=len(best),
            offered=self.offered,
            passes=self.purse.spent,
            items=best[0].items,
            seconds=round(time.monotonic() - self._started, 3),
            best=best[0].score,
            median=statistics.median(one.score for one in best),
            origins=origins,
        )


def _is_behind(one: Sequence[int], best: Sequence[int]) -> bool:
    """Whether ``one`` is right less often than ``best`` by more than two standard errors of the paired difference.

    Of d items on which just one of the two is right, the difference of their numbers has a standard error of √d at
    most.
    """
    apart = [b - a for a, b in zip(one, best, strict=True)]
    return sum(apart) > TWO_ERRORS * math.sqrt(sum(map(abs, apart)))


def passes_for(tokenizer: Any) -> int:
    """Return the item-passes that a search may make where nobody says how many."""
    return DIGIT_PASSES if tokenizer is None else TEXT_PASSES
