"""Compute intervals for shares of right answers, and for differences of two shares on the same items.

Both are score intervals: they hold the values that a z-test does not reject, with the variance that the value itself
implies, and so they cover as often as they say also near 0 and 1, for few items, and where hardly any pair differs. A
share has Wilson's interval (JASA 22, 1927), a difference in pairs Tango's (Statistics in Medicine 17, 1998).

Both are for n independent items with one answer each. Items in groups and answers of several seeds count by their
effective number (Kish, Survey Sampling, 1965): that n for which the model's variance is the one that was measured,

    Σ_g (Σ_{i∈g} (x_i − x̄))² / N²  +  the variance that the seeds add,

over groups g of the N items, x_i being item i's mean over the seeds. Without groups and with one seed that is N.
``benchmarks/coverage.py`` prints how often the truth lies inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Z = 1.96  # of a 95 % interval
DOUBT = 1.0  # groups that are taken to be all alike, beside those that were seen
HALVINGS = 60  # of an interval of length 2, which leaves less than a float's last digit


def z_of(level: float) -> float:
    """Return the z that leaves (1 − level) / 2 of the normal distribution on either side.

    >>> round(z_of(0.95), 2)
    1.96
    """
    return Z if level == 0.95 else NormalDist().inv_cdf((1 + level) / 2)


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """Compute Wilson's 95 % score interval for a share of n independent trials.

    >>> tuple(round(x, 3) for x in wilson(0.0, 100))
    (0.0, 0.037)
    >>> all(wilson(k / n, n)[0] <= k / n <= wilson(k / n, n)[1] for n in range(1, 200) for k in (0, n))
    True
    """
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))  # the share, whatever the rounding


def tango(first: float, second: float, n: float, z: float = Z) -> tuple[float, float]:
    """Compute Tango's 95 % score interval for the difference of two shares in n pairs.

    In ``first`` of the pairs only the first one is right, in ``second`` only the other. The limits are where

        (first − second − nδ) / √(n (2q̂ + δ(1 − δ))) = ±z,

    q̂ being the likeliest chance that only the second is right if the difference is δ.

    >>> tuple(round(x, 3) for x in tango(0, 0, 100))
    (-0.037, 0.037)
    """
    centre = (first - second) / n

    def distance(delta: float) -> float:
        b = -first - second + (2 * n - first + second) * delta
        q: float = (max(0.0, b * b + 8 * n * second * delta * (1 - delta)) ** 0.5 - b) / (4 * n)
        variance: float = max(0.0, n * (2 * q + delta * (1 - delta)))
        return float(abs(first - second - n * delta) - z * variance**0.5)

    return _border(distance, centre, -1.0), _border(distance, centre, 1.0)


def share_interval(outcomes: np.ndarray, groups: Sequence[Hashable] = ()) -> tuple[float, float]:
    """Compute the 95 % interval for a share: Wilson's for the effective number of items.

    Args:
        outcomes: (seed, item) zeros and ones.
        groups: one per item; items of one group are not independent.
    """
    share = float(outcomes.mean())
    return wilson(share, _effective(share * (1 - share), [outcomes], groups))


def share_gap(
    best: np.ndarray, other: np.ndarray, groups: Sequence[Hashable] = (), z: float = Z
) -> tuple[float, float]:
    """Compute the interval for the difference (best − other) in pairs: Tango's for the effective number of items.

    Args:
        best, other: (seed, item) zeros and ones, of the same items; the seeds may differ in number.
        groups: one per item. z: of the normal distribution; 95 % by default.
    """
    pairs = best.mean(axis=0) - other.mean(axis=0)
    first, second = float(pairs.clip(min=0).mean()), float(-pairs.clip(max=0).mean())
    n = _effective(first + second - (first - second) ** 2, [best, -other], groups)
    return tango(n * first, n * second, n, z)


def kish(groups: Sequence[Hashable], items: int) -> float:
    """Return the effective number of groups, (Σ m)² / Σ m²: their number where all have the same size."""
    squares = sum(size**2 for size in Counter(groups or range(items)).values())
    return float(items**2 / squares)


def _effective(modelled: float, arms: Sequence[np.ndarray], groups: Sequence[Hashable]) -> float:
    """Return how many independent items have the variance of what was measured; ``modelled`` is that of one item.

    Where nothing varies, the groups' sizes are all that is known.
    """
    items = arms[0].shape[1]
    values: np.ndarray = sum(arm.mean(axis=0) for arm in arms)  # type: ignore[assignment]
    measured = _items_variance(values, groups) + sum(map(_seeds_variance, arms))
    if modelled <= 0.0 or measured <= 0.0:
        return kish(groups, items)
    return min(float(items * max(map(len, arms))), modelled / measured)


def _items_variance(values: np.ndarray, groups: Sequence[Hashable]) -> float:
    """Return the variance of the mean of ``values`` (item,) over groups of items.

    What few groups say of how alike their items are is not worth much: beside :data:`DOUBT` groups in which they are
    all alike stand as many as contribute to the variance, (Σ r²)² / Σ r⁴ for groups of the sums r.
    """
    import numpy as np

    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(group, len(numbers)) for group in groups or range(len(values))]
    squares = np.bincount(places, weights=values - values.mean()) ** 2
    alike = float(values.var()) / kish(groups, len(values))
    if not (squares**2).sum():
        return alike
    seen = float(squares.sum() ** 2 / (squares**2).sum())
    return (seen * float(squares.sum()) / len(values) ** 2 + DOUBT * alike) / (seen + DOUBT)


def _seeds_variance(outcomes: np.ndarray) -> float:
    """Return the variance that the choice of seeds adds to the mean of (seed, item) outcomes, or 0.

    It is the variance of the seeds' means over their number, less what the items' own luck with each seed makes of it:
    that much is in the items' variance already.
    """
    seeds, items = outcomes.shape
    if seeds < 2 or items < 2:
        return 0.0
    means = outcomes.mean(axis=1)
    rest = outcomes - outcomes.mean(axis=0) - means[:, None] + outcomes.mean()
    luck = float((rest**2).sum()) / ((items - 1) * (seeds - 1))
    found: float = max(0.0, float(means.var(ddof=1)) - luck / items) / seeds
    return found


def _border(distance: Callable[[float], float], inside: float, outside: float) -> float:
    """Return where ``distance`` turns positive between a value inside the interval and one that is not."""
    if distance(outside) <= 0:
        return outside
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if distance(middle) <= 0 else (inside, middle)
    return inside
