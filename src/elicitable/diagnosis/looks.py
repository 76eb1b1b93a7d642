"""Keep a test's error where it is looked at again and again while more seeds and items are added.

The j-th look at a comparison may err with probability α(j), and Σ α(j) = α = 5 %, so that by the union bound all looks
together err no more often than one test at 95 %, however many there are and whatever decides when to stop. Most
comparisons are settled at the first look, so it gets the larger part: α(1) = 4 %, α(1 + k) = 1 % · 2⁻ᵏ.
"""

from __future__ import annotations

ALPHA = 0.05
FIRST = 0.8  # of it, for the first look


def level_after(looks: int) -> float:
    """Return the level of the interval at the next look, after ``looks`` that were not the last: 1 − α(looks + 1).

    >>> [round(level_after(looks), 5) for looks in range(3)]
    [0.96, 0.995, 0.9975]
    """
    share = FIRST if looks == 0 else (1 - FIRST) * 0.5**looks
    return 1 - ALPHA * share
