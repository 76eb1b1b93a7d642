"""A context and its content as two fused calls, where the device has kernels that allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elicitable.attention.fused import HIDDEN, Kernel, Keys, kernel_for, merged
from elicitable.attention.operands import Operands
from elicitable.models.speed.written_out import lowered

if TYPE_CHECKING:
    from elicitable.models.attend import Slot

DEVICES = {"cuda"}  # where one call over both would need a mask over both, and a copy of the content's keys
LONG = 2048  # keys of the content: 0.7 times one call's time at 4,096, and 1.4 times at 1,024 (benchmarks/attention.py)


def in_two_calls(call: Operands, slot: Slot) -> Tensor | None:
    """Attend in a fused call over the context and one over the content (:mod:`elicitable.attention.fused`).

    Returns:
        (batch, head, query, d_value), or None where one call is quicker (a CPU, a content shorter than :data:`LONG`) or
        has to be: in float64, and where a model caps its logits, adds to them, or has a sink.
    """
    assert call.prefix_key is not None
    assert call.prefix_value is not None
    if call.query.device.type not in DEVICES or call.key.shape[2] < LONG:
        return None
    if call.softcap is not None or call.sink is not None or call.content_bias is not None:
        return None
    query, key, value, before, values = lowered(call.query, call.key, call.value, call.prefix_key, call.prefix_value)
    heads, queries = query.shape[1], query.shape[2]
    mask = call.content_mask
    if mask is None and 1 < queries != key.shape[2]:
        mask = slot.causal(queries, key.shape[2], 0, key.device)
    before, values = (_of_heads(rows, heads).contiguous() for rows in (before, values))  # few, shared by the batch
    key, value = (_of_heads(rows, heads) for rows in (key, value))
    is_causal = mask is None and queries > 1
    context = Keys(before, values, _hiding(call.prefix_visible, query), shift=call.log_strength)
    parts = (context, Keys(key, value, _hiding(mask, query), is_causal))
    kernels: list[Kernel] = [kernel for part in parts if (kernel := kernel_for(query, part)) is not None]
    return merged(query, parts, tuple(kernels), call.scaling) if len(kernels) == len(parts) else None


def _of_heads(rows: Tensor, heads: int) -> Tensor:
    groups = heads // rows.shape[1]
    return rows if groups == 1 else rows.repeat_interleave(groups, dim=1)


def _hiding(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """Turn a mask (True is visible, or what is added) into what a kernel adds to its logits."""
    if mask is None:
        return None
    lowest = max(HIDDEN, torch.finfo(query.dtype).min)
    if mask.dtype != torch.bool:
        return mask.to(query.dtype).clamp(min=lowest)
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, lowest)
