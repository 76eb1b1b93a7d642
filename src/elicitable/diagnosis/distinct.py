"""Estimate how many distinct outcomes a whole population has, from a sample of it.

The share of distinct outcomes among n sampled items falls as n grows, because repeats become likelier. So it says
nothing about the population by itself, and a bootstrap of it is biased: a resample repeats items that the sample does
not repeat. Two estimates bracket the population's count instead. With f1 outcomes seen once and f2 seen twice, among n
of N items drawn without replacement, they are

    from below   D + f1² / (2 f2·n/(n−1) + f1·q/(1−q)),  q = n/N     (Chao & Lin, Biometrics 68, 2012)
    from above   D + (N − n)·f1/n

The second needs no assumption about the population: f1/n estimates, without bias, the chance that the last item drawn
was new, and that chance can only fall from there (Good, Biometrika 40, 1953).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from elicitable.diagnosis.shares import wilson
from elicitable.errors import InputError


@dataclass(frozen=True, slots=True)
class Distinct:
    """Hold the distinct outcomes among ``sampled`` of ``population`` items, and what they say of all of them.

    ``share_low`` and ``share_high`` are Wilson's 95 % limits for distinct/sampled, a share that belongs to this sample
    size. ``at_least`` and ``at_most`` estimate the population's distinct outcomes from below and from above, and
    ``low`` to ``high`` are the 95 % limits of that bracket. ``singletons`` were seen once, ``pairs`` twice.
    """

    sampled: int
    population: int
    distinct: int
    singletons: int
    pairs: int
    share_low: float
    share_high: float
    at_least: float
    at_most: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """Return the distinct outcomes per sampled item, in (0, 1]."""
        return self.distinct / self.sampled


def distinct(outcomes: Iterable[Hashable], population: int) -> Distinct:
    """Count the distinct outcomes of a simple random sample without replacement, and bracket the population's.

    ``low`` and ``high`` are 95 % limits: the estimate from below with f1 at the low and f2 at the high end of their
    Wilson intervals, and the estimate from above with f1 at its high end. Items fall in pairs or larger groups, so
    the intervals of f1 and f2 count n/2 trials. The sample that is the whole population gives its exact count.

    Raises:
        InputError: no outcomes, or more than the population has items.

    >>> found = distinct(["a", "b", "b", "c"], population=4)
    >>> found.distinct, found.low, found.high
    (3, 3.0, 3.0)
    """
    counts = Counter(outcomes)
    n, seen = counts.total(), len(counts)
    if not 0 < n <= population:
        raise InputError(
            f"a sample has between 1 and {population:,} items of a population of {population:,}, got {n:,}."
        )
    repeats = Counter(counts.values())
    once, twice = repeats[1], repeats[2]
    once_low, once_high = (n * share for share in wilson(once / n, max(1, n // 2)))
    twice_high = n / 2 * wilson(2 * twice / n, max(1, n // 2))[1]
    share_low, share_high = wilson(seen / n, n)
    at_least, at_most = (seen + unseen_at_least(once, twice, n, population), seen + unseen_at_most(once, n, population))
    return Distinct(
        sampled=n,
        population=population,
        distinct=seen,
        singletons=once,
        pairs=twice,
        share_low=min(share_low, seen / n),  # Wilson's ends at 0 and 1 are rounded in floating point
        share_high=max(share_high, seen / n),
        at_least=at_least,
        at_most=at_most,
        low=min(at_least, seen + unseen_at_least(once_low, twice_high, n, population)),
        high=max(at_most, seen + unseen_at_most(once_high, n, population)),
    )


def unseen_at_least(once: float, twice: float, n: int, population: int) -> float:
    """Estimate the unseen outcomes from below: f1² / (2 f2·n/(n−1) + f1·q/(1−q)).

    >>> unseen_at_least(once=100, twice=0, n=100, population=1000)  # all distinct: so may all of them be
    900.0
    """
    if once <= 0 or n >= population:
        return 0.0
    odds = n / (population - n)
    return once**2 / (2 * twice * n / max(1, n - 1) + once * odds)


def unseen_at_most(once: float, n: int, population: int) -> float:
    """Estimate the unseen outcomes from above: (N − n)·f1/n.

    >>> unseen_at_most(once=50, n=100, population=1000)
    450.0
    """
    return (population - n) * once / n
