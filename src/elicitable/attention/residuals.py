"""Measure how far a layer is from both identities of section 4.

    A^pt_ij = (1 − α_i) · A_ij   for content j,        t^pt_i = Σ_{j∈prefix} A^pt_ij v_j + (1 − α_i) · t_i

The left sides come from the run with the context. A and t come from a *reference*: another computation of the same
layer, from the same input at the same positions, without the context. The two may differ only in what the reference
computes for itself: its queries, keys and values from its own weights, and its softmax over the content alone. If
anything but a context was changed (a weight, a mask, a position), the residual is not small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from elicitable.attention.operands import Operands, block_rows, chunks, valid_queries, weighted
from elicitable.attention.patterns import content_pattern, joint_pattern


@dataclass(frozen=True, eq=False)
class Residuals:
    """Hold the largest deviation from each identity, (head,), in weights and in the output's own units."""

    attention: Tensor
    output: Tensor


def residuals(
    operands: Operands, output: Tensor, reference: Operands, reference_output: Tensor, block: int | None = None
) -> Residuals:
    """Hold a call against the reference.

    Args:
        operands: the call with the context.
        output: what the model computed for it, (batch, head, query, d_value).
        reference: the same call computed without the context (and without changed weights).
        reference_output: its output, t.
        block: query rows at once; by default as many as fit a processor's cache.

    Returns:
        Maxima over batch, queries that are not padding, and keys.

    Example:
        >>> x = torch.randn(1, 2, 3, 4, dtype=torch.double)
        >>> plain = Operands(x, x, x)
        >>> t = content_pattern(plain) @ x
        >>> residuals(plain, t, plain, t).attention.tolist()
        [0.0, 0.0]
    """
    heads, queries = operands.query.shape[1:3]
    valid = valid_queries(operands)
    worst = [operands.query.new_zeros(heads, dtype=operands.dtype) for _ in range(2)]
    for rows in chunks(queries, block or block_rows(operands)):
        joint = joint_pattern(operands, rows)
        rest = 1 - joint.prefix.sum(dim=-1, keepdim=True)
        weights_off = content_pattern(reference, rows).mul_(-rest).add_(joint.content)
        predicted = rest * reference_output[:, :, rows].to(operands.dtype)
        predicted = predicted + context_part(operands, joint.prefix, joint.content)
        output_off = output[:, :, rows].to(operands.dtype) - predicted
        seen = valid[:, None, rows, None]
        for at, off in enumerate((weights_off, output_off)):
            largest = torch.where(seen, off.abs(), 0.0).amax(dim=(0, 2, 3))
            worst[at] = torch.maximum(worst[at], largest)
    return Residuals(attention=worst[0], output=worst[1])


def context_part(operands: Operands, prefix_weights: Tensor, content_weights: Tensor) -> Tensor:
    """Compute Σ_{j∈prefix} A^pt_ij v_j, plus what a value bias b adds: b · Σ_{j∈content} A^pt_ij."""
    batch, heads, queries, _ = prefix_weights.shape
    d_value = operands.value.shape[3]
    part = prefix_weights.new_zeros(batch, heads, queries, d_value)
    if operands.prefix_value is not None:
        part = part + weighted(prefix_weights, operands.prefix_value.to(part.dtype))
    if operands.value_bias is not None:
        bias = operands.value_bias.to(part.dtype)
        bias = bias.repeat_interleave(heads // bias.shape[0], dim=0)[None, :, None, :]
        keys = content_weights.shape[-1] - (operands.sink is not None)
        part = part + content_weights[..., :keys].sum(dim=-1, keepdim=True) * bias
    return part
