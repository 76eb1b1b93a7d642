"""Measure how far two attention patterns over the same content are apart."""

from __future__ import annotations

import torch
from torch import Tensor


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Compute ½ Σ_j |p_j − q_j| over the last axis, in [0, 1].

    >>> total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item()
    1.0
    """
    distance: Tensor = torch.linalg.vector_norm(p - q, ord=1, dim=-1)
    return 0.5 * distance


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Compute ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q)/2, in nats, in [0, log 2].

    Computed as H(m) − ½ H(p) − ½ H(q), to about the rounding of one entropy: 1e-7 in float32.

    >>> round(jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item(), 4)
    0.6931
    """
    mixed = _entropy((p + q).mul_(0.5))
    return (mixed - 0.5 * (_entropy(p) + _entropy(q))).clamp(min=0.0)


def _entropy(p: Tensor) -> Tensor:
    """Compute −Σ_j p_j log p_j over the last axis, where 0 log 0 = 0."""
    expected: Tensor = torch.linalg.vecdot(p, p.clamp(min=torch.finfo(p.dtype).tiny).log_())
    return -expected
