"""Compute intervals by a bootstrap over test items and seeds, in which pairs stay pairs and groups stay together.

Items are resampled once for all methods, because they all answered the same items; seeds are resampled within each
method. Items that belong together (the same text twice, sentences of one document) form a group and are drawn together,
so that 51 rows of which 17 are distinct count as 17.

A share of right answers has Wilson's interval, a difference of two shares Tango's
(:mod:`elicitable.diagnosis.shares`): where few items are wrong, or few pairs differ, a bootstrap is too sure of itself.
Any other score is biased and skewed in small samples, so its limits are BCa's (Efron, JASA 82, 1987), at levels widened
by Student's t with one degree of freedom less than there are groups (Hesterberg, The American Statistician 69, 2015).
That holds for scores and for their differences; ``benchmarks/coverage.py`` prints how often the truth lies inside.

The paper's tables rest on :func:`percentile_interval` and :func:`percentile_gap`, and keep them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from elicitable.diagnosis.shares import kish, share_gap, share_interval, tango, wilson, z_of
from elicitable.errors import InputError
from elicitable.rng import generator
from elicitable.values import Scored

if TYPE_CHECKING:
    import numpy as np

Outcomes = tuple[tuple[int, ...], ...]  # (seed, item), 0 or 1
Arm = Outcomes | Sequence[Scored]  # one Scored per seed, where the score is not a share of right answers
Groups = Sequence[Hashable]  # one per item; equal ones are drawn together
REPLICATES = 4_000
LEVEL = 0.95
CHUNK = 500  # replicates at a time: a thousand labels have three thousand sums
TIED = 1e-12  # two differences of shares that are equal may differ by rounding


@dataclass(frozen=True, eq=False)
class Share:
    """Hold the outcomes of one seed, (item,) zeros and ones, as :class:`elicitable.values.Scored`."""

    outcomes: np.ndarray
    lowest: float = 0.0
    highest: float = 1.0
    is_share: bool = True
    replicates: int = REPLICATES

    @property
    def items(self) -> int:
        """Count how many items were answered."""
        return len(self.outcomes)

    def under(self, counts: np.ndarray) -> np.ndarray:
        """Compute Σ count·outcome / Σ count, (replicate,)."""
        share: np.ndarray = counts @ self.outcomes / counts.sum(axis=1)  # whole numbers, then one division
        return share


def replicates(arms: dict[str, Arm], seed: int, count: int = 0, groups: Groups = ()) -> dict[str, np.ndarray]:
    """Draw bootstrap scores, (replicate,) each, with the same items for every arm; the mean over each arm's seeds.

    There are ``count`` replicates, by default as many as the score that affords the fewest.

    Raises:
        InputError: there are groups, but not one per item.

    >>> means = replicates({"a": ((1, 1, 0, 0),), "b": ((1, 1, 1, 0),)}, seed=0)
    >>> bool((means["b"] >= means["a"]).all())
    True
    """
    import numpy as np

    seeded = {name: by_seed(arm) for name, arm in arms.items()}
    everything = [scored for scores in seeded.values() for scored in scores]
    count = count or min(scored.replicates for scored in everything)
    counts = _item_counts(everything[0].items, _places(groups, everything[0].items), seed, count)
    means = {}
    for name, scores in seeded.items():
        table = np.stack([_under(scored, counts) for scored in scores])  # (seed, replicate)
        seeds = generator(seed, "bootstrap", "seeds", name).integers(len(table), size=(count, len(table)))
        means[name] = table[seeds, np.arange(count)[:, None]].mean(axis=1)
    return means


def by_seed(arm: Arm) -> Sequence[Scored]:
    """Return an arm as one Scored per seed."""
    import numpy as np

    if not isinstance(arm[0], tuple | list):
        return cast(Sequence[Scored], arm)
    return [Share(np.asarray(outcomes, dtype=float)) for outcomes in arm]


def point(arm: Arm) -> float:
    """Return the score of an arm, mean over its seeds."""
    import numpy as np

    if isinstance(arm[0], tuple | list):
        return float(np.mean(cast(Outcomes, arm)))
    return float(np.mean([scored.under(np.ones((1, scored.items)))[0] for scored in by_seed(arm)]))


def interval(arm: Arm, seed: int, groups: Groups = ()) -> tuple[float, float]:
    """Compute the 95 % interval for a score: Wilson's for a share, else by a bootstrap over items and seeds.

    Groups count by their effective number. A bootstrap of equal outcomes has no width at all; Wilson's score interval,
    on the scale from the score's lowest to its highest value, still knows that there are finitely many.
    """
    scores = by_seed(arm)
    _places(groups, scores[0].items)
    if all(scored.is_share for scored in scores):
        return share_interval(_outcomes(scores), groups)
    means, centre = replicates({"arm": arm}, seed, groups=groups)["arm"], point(arm)
    low, high = _accelerated(means, centre, _jackknife(scores, groups))
    return (low, high) if high - low > TIED else _on_scale(wilson, centre, scores[0], groups)


def gap(best: Arm, other: Arm, seed: int, groups: Groups = (), level: float = LEVEL) -> tuple[float, float, float]:
    """Score, low and high of (best − other) in pairs, at ``level``: Tango's for shares, else by a bootstrap."""
    both = (by_seed(best), by_seed(other))
    centre = point(best) - point(other)
    _places(groups, both[0][0].items)
    if all(scored.is_share for scores in both for scored in scores):
        return centre, *share_gap(_outcomes(both[0]), _outcomes(both[1]), groups, z_of(level))
    means = replicates({"best": best, "other": other}, seed, groups=groups)
    knife = _jackknife(both[0], groups) - _jackknife(both[1], groups)
    low, high = _accelerated(means["best"] - means["other"], centre, knife, level)
    if high - low > TIED:
        return centre, low, high
    width = both[0][0].highest - both[0][0].lowest
    low, high = (width * limit for limit in tango(0, 0, kish(groups, both[0][0].items), z_of(level)))
    return centre, centre + low, centre + high


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Compute Student's interval of a mean: x̄ ± t(n − 1) · s/√n, in the unit of the values.

    Raises:
        InputError: there are fewer than two values, which say nothing of their spread.

    >>> tuple(round(end, 3) for end in mean_interval([1.0, 2.0, 3.0]))
    (-0.484, 4.484)
    """
    from scipy.special import stdtrit

    if len(values) < 2:
        raise InputError("an interval of a mean needs at least two values.")
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.fmean(values)
    return middle - half, middle + half


def percentile_interval(outcomes: Outcomes, seed: int) -> tuple[float, float]:
    """Compute the 95 % interval for a share by percentiles of the bootstrap, widened to Wilson's."""
    low, high = _percentile(replicates({"arm": outcomes}, seed)["arm"])
    wilson_low, wilson_high = wilson(point(outcomes), len(outcomes[0]))
    return min(low, wilson_low), max(high, wilson_high)


def percentile_gap(best: Outcomes, other: Outcomes, seed: int) -> tuple[float, float, float]:
    """Score, low and high of (best − other), in pairs over items, at 95 % by percentiles of the bootstrap."""
    means = replicates({"best": best, "other": other}, seed)
    return point(best) - point(other), *_percentile(means["best"] - means["other"])


def _outcomes(scores: Sequence[Scored]) -> np.ndarray:
    """Return (seed, item) the score of every item by itself."""
    import numpy as np

    return np.stack([scored.outcomes if isinstance(scored, Share) else _alone(scored) for scored in scores])


def _alone(scored: Scored) -> np.ndarray:
    import numpy as np

    chunks = (np.arange(first, min(first + CHUNK, scored.items)) for first in range(0, scored.items, CHUNK))
    return np.concatenate(
        [scored.under((places[:, None] == np.arange(scored.items)).astype(float)) for places in chunks]
    )


def _on_scale(
    limits: Callable[[float, float], tuple[float, float]], centre: float, scored: Scored, groups: Groups
) -> tuple[float, float]:
    """Return ``limits`` for a share, as the score's own scale has it."""
    width = scored.highest - scored.lowest
    low, high = limits((centre - scored.lowest) / width, kish(groups, scored.items))
    return scored.lowest + width * low, scored.lowest + width * high


def _percentile(means: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _accelerated(means: np.ndarray, centre: float, knife: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Compute BCa's limits: quantiles of the replicates at Φ(z₀ + (z₀ ± z)/(1 − a(z₀ ± z))).

    z₀ is Φ⁻¹ of the share of replicates below the score, a the skewness of its jackknife values /6, and z Student's
    quantile times √(G/(G − 1)) for G groups in place of the normal one.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri, stdtrit

    groups = len(knife)
    if groups < 2:
        return _percentile(means, level)
    below = (means < centre - TIED).mean() + (np.abs(means - centre) <= TIED).mean() / 2
    bias = ndtri(np.clip(below, 1 / len(means), 1 - 1 / len(means)))
    pull = knife.mean() - knife
    spread = (pull**2).sum() ** 1.5
    skew = (pull**3).sum() / (6 * spread) if spread > 0 else 0.0
    z = stdtrit(groups - 1, (1 + level) / 2) * (groups / (groups - 1)) ** 0.5 * np.array([-1.0, 1.0])
    low, high = np.quantile(means, ndtr(bias + (bias + z) / (1 - skew * (bias + z))))
    return float(low), float(high)


def _jackknife(scores: Sequence[Scored], groups: Groups) -> np.ndarray:
    """Return (group,) the score without each group, mean over seeds."""
    import numpy as np

    items = scores[0].items
    places = np.arange(items) if not groups else np.array(_places(groups, items))
    total = int(places.max()) + 1
    if total < 2:
        return np.array([point(scores)])
    left = [
        np.mean([scored.under(counts) for scored in scores], axis=0) for counts in _all_but_one(places, total)
    ]  # (chunk,) each
    return np.concatenate(left)


def _all_but_one(places: np.ndarray, total: int) -> Iterator[np.ndarray]:
    """Return (chunk, item) ones, and zeros for the items of one group per row."""
    import numpy as np

    for first in range(0, total, CHUNK):
        yield (places != np.arange(first, min(first + CHUNK, total))[:, None]).astype(float)


def _places(groups: Groups, items: int) -> tuple[int, ...]:
    """Return the number of each item's group, in the order of first appearance; empty where every item stands alone."""
    if groups and len(groups) != items:
        raise InputError(f"groups name the group of every item: {items} items, but {len(groups)} groups.")
    numbers: dict[Hashable, int] = {}
    return tuple(numbers.setdefault(group, len(numbers)) for group in groups)


@lru_cache(maxsize=1)
def _item_counts(items: int, places: tuple[int, ...], seed: int, count: int) -> np.ndarray:
    """Return (replicate, item) how often each item is drawn; the same for every arm, so drawn once for all of them."""
    import numpy as np

    groups = max(places) + 1 if places else items
    rng = generator(seed, "bootstrap", "items")
    counts = rng.multinomial(groups, [1.0 / groups] * groups, size=count).astype(float)
    return counts[:, np.array(places)] if places else counts


def _under(scored: Scored, counts: np.ndarray) -> np.ndarray:
    """Return (replicate,) scores, a chunk of replicates at a time."""
    import numpy as np

    chunks = [scored.under(counts[first : first + CHUNK]) for first in range(0, len(counts), CHUNK)]
    return np.concatenate(chunks)
