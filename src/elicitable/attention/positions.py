"""Find out which virtual tokens are used: each position's share of the prefix mass, and how much that varies.

Appendix B of the paper says that one or two positions of a trained prefix take most of the mass, almost whatever the
input. The shares are collected in a histogram, so percentiles over any number of batches need a fixed memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elicitable.attention.operands import chunks

BINS = 512  # a percentile is known to 1/512: finer than the spreads of 0.016 and more that appendix B reports


def share_histogram(share: Tensor, valid: Tensor) -> Tensor:
    """Return the counts of each position's share over queries that are not padding: (head, prefix, BINS) of int32.

    Args:
        share: softmax within the context, (batch, head, query, prefix).
        valid: (batch, query) bool.
    """
    batch, heads, queries, prefix = share.shape
    counts = torch.zeros(heads * prefix * BINS, dtype=torch.int32)
    place = torch.arange(heads * prefix, device=share.device).reshape(heads, 1, prefix) * BINS
    for rows in chunks(queries, max(1, 2**20 // max(batch * heads * prefix, 1))):
        bins = (share[:, :, rows] * BINS).long().clamp_(0, BINS - 1).add_(place)
        seen = bins.transpose(1, 2)[valid[:, rows]]
        counts += torch.bincount(seen.flatten().cpu(), minlength=len(counts)).to(torch.int32)
    return counts.reshape(heads, prefix, BINS)


def percentile(histogram: Tensor, q: float) -> Tensor:
    """Return the share below which a fraction ``q`` of the counts lies, (…,), to 1/BINS; NaN where nothing was counted.

    >>> counts = torch.zeros(BINS, dtype=torch.int32)
    >>> counts[128] = 10
    >>> percentile(counts, 0.5).item()
    0.2509765625
    """
    total = histogram.sum(dim=-1, dtype=torch.float64)
    reached = histogram.cumsum(dim=-1, dtype=torch.float64) >= (q * total)[..., None]
    middle = (reached.to(torch.int32).argmax(dim=-1).double() + 0.5) / BINS
    return torch.where(total > 0, middle, torch.nan)


def spread(histogram: Tensor, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Return the 1–99 percentile spread of each position's share, (…,), in [0, 1]; appendix B's figure."""
    return percentile(histogram, high) - percentile(histogram, low)
