"""Intervals by bootstrap over test items and seeds; pairs stay pairs.

Items are resampled once for all methods (they answered the same items), seeds within each method.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from elicitable.rng import generator

if TYPE_CHECKING:
    import numpy as np

Outcomes = tuple[tuple[int, ...], ...]  # (seed, item), 0 or 1
REPLICATES = 4_000


def replicates(arms: dict[str, Outcomes], seed: int, count: int = REPLICATES) -> dict[str, np.ndarray]:
    """Bootstrap means, (replicate,) each, drawn with the same items for every arm.

    >>> means = replicates({"a": ((1, 1, 0, 0),), "b": ((1, 1, 1, 0),)}, seed=0)
    >>> bool((means["b"] >= means["a"]).all())
    True
    """
    import numpy as np

    items = len(next(iter(arms.values()))[0])
    counts = _item_counts(items, seed, count)
    means = {}
    for name, outcomes in arms.items():
        by_seed = np.asarray(outcomes, dtype=float) @ counts.T / items  # (seed, replicate); whole numbers, then one /
        seeds = generator(seed, "bootstrap", "seeds", name).integers(len(by_seed), size=(count, len(by_seed)))
        means[name] = by_seed[seeds, np.arange(count)[:, None]].mean(axis=1)
    return means


@lru_cache(maxsize=1)
def _item_counts(items: int, seed: int, count: int) -> np.ndarray:
    """(replicate, item) how often each item is drawn; the same for every arm, so drawn once for all of them."""
    rng = generator(seed, "bootstrap", "items")
    return rng.multinomial(items, [1.0 / items] * items, size=count).astype(float)


def interval(outcomes: Outcomes, seed: int, level: float = 0.95) -> tuple[float, float]:
    """The interval for a mean: bootstrap over items and seeds, widened to Wilson's where every outcome is the same.

    A bootstrap of n equal outcomes has no width at all; Wilson's score interval still knows that n is finite.
    """
    import numpy as np

    means = replicates({"arm": outcomes}, seed)["arm"]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    n = len(outcomes[0])
    score_low, score_high = wilson(float(np.mean(outcomes)), n)
    return float(min(low, score_low)), float(max(high, score_high))


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % score interval for a share of n independent trials.

    >>> tuple(round(x, 3) for x in wilson(0.0, 100))
    (0.0, 0.037)
    """
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def gap(best: Outcomes, other: Outcomes, seed: int, level: float = 0.95) -> tuple[float, float, float]:
    """Mean, low and high of (best − other), in pairs over items."""
    import numpy as np

    means = replicates({"best": best, "other": other}, seed)
    difference = means["best"] - means["other"]
    low, high = np.quantile(difference, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean(best) - np.mean(other)), float(low), float(high)
