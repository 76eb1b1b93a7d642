"""Find out why content attention drifts, by crossing the queries and keys of two runs (section 6, measured exactly).

Below a prefixed layer both queries and keys have changed. Take q and k each from the run with the context (1) or
without it (0). That gives four patterns P_qk, and the change is a sum of three parts:

    P_11 − P_00 = (P_10 − P_00) + (P_01 − P_00) + (P_11 − P_10 − P_01 + P_00)
                  changed queries  changed keys    interaction

The context changes the attention weights themselves by that, scaled, plus its own local rescaling:

    A^pt − P_00 = −α P_11 + (P_11 − P_00)        local rescaling, and what came from below
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from elicitable.attention.drift import jensen_shannon, total_variation
from elicitable.attention.float64 import with_float64
from elicitable.attention.operands import Operands, block_rows, chunks, content_logits, valid_queries
from elicitable.attention.patterns import content_pattern, joint_pattern


@dataclass(frozen=True, eq=False)
class Crossed:
    """Hold the four patterns of one block of queries, (batch, head, query, key); index q then k, 1 is with context."""

    p11: Tensor
    p10: Tensor
    p01: Tensor
    p00: Tensor

    @property
    def by_queries(self) -> Tensor:
        """Compute P_10 − P_00: what the changed queries do alone."""
        return self.p10 - self.p00

    @property
    def by_keys(self) -> Tensor:
        """Compute P_01 − P_00: what the changed keys do alone."""
        return self.p01 - self.p00

    @property
    def interaction(self) -> Tensor:
        """Compute P_11 − P_10 − P_01 + P_00: what neither does alone."""
        return (self.p11 - self.p10).sub_(self.p01).add_(self.p00)


#: The statistics of :class:`Drift` that are summed over every query, and those over queries after their row's first.
OVER_QUERIES = ("variation", "divergence", "by_queries", "by_keys", "interaction", "local")
OVER_LATER = ("first_with", "first_without")


@dataclass(frozen=True, eq=False)
class Drift:
    """Hold the sums over batch and queries that are not padding, (head,), of each statistic; ``queries`` is how many.

    Attributes:
        variation: total variation between content attention with and without the context.
        divergence: Jensen–Shannon divergence of the same, nats.
        by_queries: ½ Σ_j |P_10 − P_00|.
        by_keys: ½ Σ_j |P_01 − P_00|.
        interaction: ½ Σ_j |interaction|.
        local: ½ Σ_j |A^pt_ij − P_11,ij| = α/2, the local rescaling.
        first_with: the content's first token's weight in A^pt (the model's own sink, with the context), summed over
            later queries alone; 0 where a sliding window has passed it.
        first_without: the same without the context.
        residual: the largest |A^pt − (1 − α)(P_00 + the three parts)|; (head,), a maximum and no sum.
        queries: number of (batch, query) pairs summed over.
        later: how many of them come after their row's first token.
    """

    variation: Tensor
    divergence: Tensor
    by_queries: Tensor
    by_keys: Tensor
    interaction: Tensor
    local: Tensor
    first_with: Tensor
    first_without: Tensor
    residual: Tensor
    queries: int
    later: int


def cross(
    with_context: Operands, without: Operands, rows: slice = slice(None), logits: Tensor | None = None
) -> Crossed:
    """Return the four content patterns of two runs over the same content; ``logits`` are the first's, if known.

    Example:
        >>> q, k = torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
        >>> crossed = cross(Operands(q, k, k), Operands(q, k, k))
        >>> bool((crossed.interaction == 0).all())
        True
    """
    return Crossed(
        p11=content_pattern(with_context, rows) if logits is None else torch.softmax(logits, dim=-1),
        p10=content_pattern(replace(without, query=with_context.query), rows),
        p01=content_pattern(replace(without, key=with_context.key), rows),
        p00=content_pattern(without, rows),
    )


def drift(with_context: Operands, without: Operands, block: int | None = None, first: Tensor | None = None) -> Drift:
    """Measure the drift of content attention between two runs, and what it is made of.

    Args:
        with_context: the call in the run with the context.
        without: the call of the same layer in the run without it, over the same content at the same positions.
        block: query rows at once; by default as many as fit a processor's cache.
        first: (batch,) place of the content's first token among the keys, negative where a cache has let go of it; by
            default the first key that a query sees (:func:`first_key`).

    Example:
        >>> x = torch.randn(1, 2, 3, 4)
        >>> drift(Operands(x, x, x), Operands(x, x, x)).variation.tolist()
        [0.0, 0.0]
    """
    heads, queries = with_context.query.shape[1:3]
    sums = {name: torch.zeros(heads, dtype=torch.float64) for name in (*OVER_QUERIES, *OVER_LATER, "residual")}
    valid = valid_queries(with_context)
    first = first_key(with_context) if first is None else first
    own = torch.arange(queries, device=valid.device) + with_context.key.shape[2] - queries
    later = valid & (own > first[:, None])
    for rows in chunks(queries, block or block_rows(with_context)):
        seen = valid[:, None, rows]
        for name, each in _block(with_context, without, rows, first).items():
            each = torch.where(later[:, None, rows] if name in OVER_LATER else seen, each, 0.0)
            if name == "residual":
                sums[name] = torch.maximum(sums[name], each.amax(dim=(0, 2)).cpu().double())
            else:
                own = each.to(with_float64(each.device))
                sums[name] += own.sum(dim=(0, 2), dtype=torch.float64).cpu()
    return Drift(**sums, queries=int(valid.sum()), later=int(later.sum()))


def _block(one: Operands, zero: Operands, rows: slice, first: Tensor) -> dict[str, Tensor]:
    logits = content_logits(one, rows)
    crossed, joint = cross(one, zero, rows, logits), joint_pattern(one, rows, logits)
    rest = 1 - joint.prefix.sum(dim=-1, keepdim=True)
    by_queries, by_keys, interaction = crossed.by_queries, crossed.by_keys, crossed.interaction
    recombined = (crossed.p00 + by_queries).add_(by_keys).add_(interaction)
    at = first.clamp(min=0, max=joint.content.shape[-1] - 1)[:, None, None, None].expand(*joint.content.shape[:3], 1)
    held = (first >= 0)[:, None, None]
    return {
        "variation": total_variation(crossed.p11, crossed.p00),
        "divergence": jensen_shannon(crossed.p11, crossed.p00),
        "by_queries": 0.5 * torch.linalg.vector_norm(by_queries, ord=1, dim=-1),
        "by_keys": 0.5 * torch.linalg.vector_norm(by_keys, ord=1, dim=-1),
        "interaction": 0.5 * torch.linalg.vector_norm(interaction, ord=1, dim=-1),
        "local": total_variation(joint.content, crossed.p11),
        "first_with": joint.content.gather(-1, at)[..., 0] * held,
        "first_without": crossed.p00.gather(-1, at)[..., 0] * held,
        "residual": (joint.content - recombined.mul_(rest)).abs_().amax(dim=-1),
    }


def first_key(operands: Operands) -> Tensor:
    """Return (batch,) index of the first content key that any query sees: in a whole text its first token's.

    >>> x = torch.zeros(1, 1, 2, 1)
    >>> first_key(Operands(x, x, x, content_mask=torch.tensor([[[[False, False], [False, True]]]]))).tolist()
    [1]
    """
    batch, keys = operands.key.shape[0], operands.key.shape[2]
    mask = operands.content_mask
    if mask is None:
        return torch.zeros(batch, dtype=torch.long, device=operands.key.device)
    seen = mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] > torch.finfo(mask.dtype).min / 2
    ever = seen.any(dim=1).expand(batch, keys)
    return ever.long().argmax(dim=-1)
