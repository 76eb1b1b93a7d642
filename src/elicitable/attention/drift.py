"""How far two attention patterns over the same content are apart."""

from __future__ import annotations

import torch
from torch import Tensor


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """½ Σ_j |p_j − q_j| over the last axis, in [0, 1].

    >>> total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item()
    1.0
    """
    return 0.5 * (p - q).abs().sum(dim=-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q)/2, in nats, in [0, log 2].

    >>> round(jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item(), 4)
    0.6931
    """
    middle = (p + q) / 2
    divergence = torch.special.xlogy(p, p / middle) + torch.special.xlogy(q, q / middle)
    return 0.5 * torch.where(middle > 0, divergence, 0.0).sum(dim=-1).clamp(min=0.0)
