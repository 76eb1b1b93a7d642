"""Read a context's odds off one attention call: how its softmax weight compares with the content's.

    α / (1 − α) = exp(L^prefix − L^content)

Here L is the log-sum-exp of the logits. Of two contexts that stand together, exp(L^prefix) is the sum of both, so odds
add: those of both together are the sum of those that each has alone, **given the layer's input**. (α itself does not
add: it cannot exceed 1.)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from elicitable.attention.operands import Operands, prefix_logits, valid_queries
from elicitable.attention.split import attend_content, split


def prefix_lse(operands: Operands, rows: slice = slice(None)) -> Tensor:
    """Compute the log-sum-exp of the context's logits, (batch, head, query); −∞ where no context key is visible."""
    if operands.prefix_key is None or operands.prefix_length == 0:
        query = operands.query[:, :, rows]
        return torch.full(query.shape[:3], -torch.inf, dtype=operands.dtype, device=query.device)
    return torch.logsumexp(prefix_logits(operands, rows), dim=-1)


def log_odds(operands: Operands) -> Tensor:
    """Compute log α/(1 − α) = L^prefix − L^content, (batch, head, query).

    Example:
        >>> one = torch.ones(1, 1, 1, 1)
        >>> log_odds(Operands(one, one, one, prefix_key=one.expand(1, 1, 3, 1), prefix_value=one)).exp().round().item()
        3.0
    """
    _, content = attend_content(operands)
    before = prefix_lse(operands)
    return torch.where(before.isneginf(), before, before - content)


def odds_residual(operands: Operands) -> Tensor:
    """Measure how far the context's odds are from the sum of its two halves', (head,): relative, the largest.

    The odds of all of it and of each half are read off three softmaxes of their own, as α/(1 − α). Queries that see no
    context key, or are padding, are left out.
    """
    heads = operands.query.shape[1]
    length = operands.prefix_length
    if length < 2:
        return torch.zeros(heads, dtype=operands.dtype, device=operands.query.device)
    whole = _odds(operands)
    halves = _odds(part_of(operands, 0, length // 2)) + _odds(part_of(operands, length // 2, length))
    counted = (whole > 0) & whole.isfinite() & valid_queries(operands)[:, None]
    off = torch.where(counted, (halves - whole).abs() / torch.where(counted, whole, 1.0), 0.0)
    return off.amax(dim=(0, 2))


def part_of(operands: Operands, first: int, end: int) -> Operands:
    """Keep the context's keys from ``first`` up to ``end`` alone."""
    assert operands.prefix_key is not None
    assert operands.prefix_value is not None

    def kept(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[..., first:end]

    return replace(
        operands,
        prefix_key=operands.prefix_key[:, :, first:end],
        prefix_value=operands.prefix_value[:, :, first:end],
        prefix_visible=kept(operands.prefix_visible),
        prefix_bias=kept(operands.prefix_bias),
    )


def _odds(operands: Operands) -> Tensor:
    parts = split(operands)
    return parts.mass / parts.content_mass.clamp(min=torch.finfo(parts.mass.dtype).tiny)
