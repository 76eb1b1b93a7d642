"""Turn the costs of labels into probabilities that mean what they say.

A decision rule gives every label a cost c_k and answers with the least
(:mod:`elicitable.training.decision_rules`). Its probabilities are

    p_k = exp(−s·c_k) / Σ_j exp(−s·c_j),

with one slope s > 0 for all labels, so that the likeliest label is always the answer of the rule. The slope is what
makes the right labels of the validation split likely (temperature scaling: Guo et al., ICML 2017, arXiv 1706.04599).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicitable.errors import InputError

Floats = NDArray[np.float64]
STEPS = 200


def slope_of(costs: Any, truth: Any, penalty: float = 1.0) -> float:
    """Return the slope s > 0 that minimises −Σ_i log p_i[y_i] + penalty/2 · (log s)².

    In t = log s the sum is smooth and falls into one valley, because it is convex in s and s grows with t; so the
    derivative changes its sign once, and bisection finds where. Without evidence s is 1. A cost of infinity is a label
    that an item does not have.

    Args:
        costs: (item, label), in nats after the rule.
        truth: (item,) the place of the right label.
        penalty: how strongly s is held at 1, as if by so many observations.

    Raises:
        InputError: a right label costs infinitely much or is not a number, or the shapes differ.

    >>> round(slope_of([[0.0, 1.0], [1.0, 0.0]], [0, 1]), 3) > 1
    True
    """
    matrix, right = np.asarray(costs, dtype=np.float64), np.asarray(truth, dtype=np.int64)
    if matrix.ndim != 2 or right.shape != (len(matrix),):
        raise InputError(f"costs are (item, label) with one right label each; got {matrix.shape} and {right.shape}.")
    own = matrix[np.arange(len(right)), right]
    if not np.isfinite(own).all() or np.isnan(matrix).any():
        raise InputError("a label's cost is not a number; a model that gives NaN or infinity cannot be calibrated.")
    behind = matrix - own[:, None]  # of every label, against the right one

    def rises(t: float) -> float:
        s = math.exp(t)
        weights = probabilities(behind, s)
        gains = np.where(weights > 0, weights * np.where(np.isfinite(behind), behind, 0.0), 0.0)
        return penalty * t - s * float(gains.sum())

    low, high = -20.0, 20.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) > 0 else (middle, high)
    return math.exp((low + high) / 2)


def probabilities(costs: Any, slope: float) -> Floats:
    """Return (item, label) probabilities, each row of which sums to 1; 0 where a cost is infinite.

    >>> probabilities([[0.0, 0.0], [0.0, float("inf")]], 1.0).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    matrix = np.asarray(costs, dtype=np.float64)
    weights = np.exp(-slope * (matrix - matrix.min(axis=1, keepdims=True)))
    found: Floats = weights / weights.sum(axis=1, keepdims=True)
    return found
