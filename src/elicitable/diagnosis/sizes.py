"""Fit a score over the numbers that are trained: at how many is half of what can be gained there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ANYWHERE = "numbers anywhere"  # the curve of random subspaces of all weights


@dataclass(frozen=True, slots=True)
class SizeCurve:
    """Hold score over numbers trained as a logistic function of their logarithm: score = top / (1 + (half/n)^slope).

    ``half`` is the number at which half of ``top``, the best arm's gain over the bare model, is there; None where the
    points do not tell.
    """

    name: str
    points: tuple[tuple[int, float], ...]
    half: float | None
    slope: float | None

    @property
    def is_anywhere(self) -> bool:
        """Whether its numbers were put anywhere in the weights."""
        return self.name == ANYWHERE


def size_curve(name: str, points: Mapping[int, float], base: float, best: float) -> SizeCurve:
    """Fit the share of the gain from ``base`` to ``best`` over the numbers trained: 1 / (1 + (half/n)^slope).

    Least squares over a grid of slopes and of halves (log-spaced, from a hundredth of the fewest numbers to a hundred
    times the most).

    >>> curve = size_curve("a", {10: 0.25, 100: 0.5, 1000: 0.75}, base=0.0, best=1.0)
    >>> 80 < curve.half < 120
    True
    """
    import numpy as np

    kept = tuple(sorted(points.items()))
    if len(kept) < 2 or best <= base:
        return SizeCurve(name, kept, None, None)
    numbers = np.array([n for n, _ in kept], dtype=float)
    gains = np.array([(score - base) / (best - base) for _, score in kept])
    halves = np.geomspace(numbers[0] / 100, numbers[-1] * 100, 400)
    slopes = np.geomspace(0.2, 8.0, 40)
    shares = 1.0 / (1.0 + (halves[:, None, None] / numbers) ** slopes[None, :, None])
    misses = ((shares - gains) ** 2).sum(axis=-1)
    at, steep = np.unravel_index(int(misses.argmin()), misses.shape)
    is_inside = numbers[0] / 50 < halves[at] < numbers[-1] * 50
    return SizeCurve(name, kept, float(halves[at]) if is_inside else None, float(slopes[steep]) if is_inside else None)
