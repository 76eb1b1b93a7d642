"""Split a head's output exactly into the context's part and the content's part.

    t^pt_i = Σ_{j∈prefix} A^pt_ij v_j + (1 − α_i) · t_i,        α_i = sigmoid(L^prefix_i − L^content_i)

Here L is the log-sum-exp of the logits, t is the output when the content attends to itself, and α is the prefix mass
(section 4 of the paper). Neither side needs a query × key matrix. The content goes through a flash kernel that returns
its log-sum-exp, or through blocks of queries if the logits are capped or biased.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from elicitable.attention.operands import (
    Operands,
    block_rows,
    chunks,
    content_logits,
    prefix_logits,
    seen_keys,
    weighted,
)


@dataclass(frozen=True, eq=False)
class Parts:
    """Hold the split of one call.

    Attributes:
        mass: α, (batch, head, query) in [0, 1].
        share: softmax within the context, (batch, head, query, prefix); rows sum to one, or to zero where no context
            key is visible.
        inside: Σ_j share_ij v_j, (batch, head, query, d_value): where the bias points; the bias is mass · inside.
        content: t, the output without the context, (batch, head, query, d_value).
        content_mass: 1 − α, computed as such, so that it is exact near 0.
    """

    mass: Tensor
    share: Tensor
    inside: Tensor
    content: Tensor
    content_mass: Tensor

    @property
    def bias(self) -> Tensor:
        """Return the context's part of the output, (batch, head, query, d_value)."""
        return self.mass[..., None] * self.inside

    @property
    def rest(self) -> Tensor:
        """Return the content's part of the output, (1 − α) t, (batch, head, query, d_value)."""
        return self.content_mass[..., None] * self.content


def split(operands: Operands, block: int | None = None) -> Parts:
    """Split one attention call.

    Args:
        operands: the call. Gradients do not flow through the split.
        block: query rows computed at once where no flash kernel applies; by default as fit a processor's cache.

    Example:
        >>> one = torch.ones(1, 1, 1, 1)
        >>> parts = split(Operands(one, one, one, prefix_key=one, prefix_value=3 * one))
        >>> parts.mass.item(), recombine(parts).item()
        (0.5, 2.0)
    """
    with torch.no_grad():
        operands = operands.detached()
        content, lse = attend_content(operands, block)
        if operands.prefix_value is None:
            return _without(content)
        logits = prefix_logits(operands)
        before = torch.logsumexp(logits, dim=-1)
        # a row that sees no context key has logits of −∞ alone: its share is zero, not NaN
        share = logits.sub_(torch.where(before.isneginf(), 0.0, before)[..., None]).exp_()
        lead = before - lse
        lead = torch.where(before.isneginf(), -torch.inf, lead)  # also where the query sees nothing at all (padding)
        return Parts(
            mass=torch.sigmoid(lead),
            share=share,
            inside=weighted(share, operands.prefix_value.to(share.dtype)),
            content=content,
            content_mass=torch.sigmoid(-lead),
        )


def recombine(parts: Parts) -> Tensor:
    """Compute mass · inside + (1 − mass) · content: the head's output, (batch, head, query, d_value)."""
    return torch.addcmul(parts.bias, parts.content_mass[..., None], parts.content)


def attend_content(operands: Operands, block: int | None = None) -> tuple[Tensor, Tensor]:
    """Let the content attend to itself: output (batch, head, query, d_value), log-sum-exp (batch, head, query)."""
    if _has_flash(operands):
        return _flash(operands)
    value = operands.value.to(operands.dtype)
    outputs, sums = [], []
    for rows in chunks(operands.query.shape[2], block or block_rows(operands)):
        logits = content_logits(operands, rows)
        lse = torch.logsumexp(logits, dim=-1)
        weights = torch.exp(logits - torch.where(lse.isneginf(), 0.0, lse)[..., None])
        seen = seen_keys(operands, rows)
        outputs.append(weighted(weights[..., :seen], value[:, :, :seen]))
        sums.append(lse)
    return torch.cat(outputs, dim=2), torch.cat(sums, dim=2)


def _without(content: Tensor) -> Parts:
    rows = content.shape[:3]
    return Parts(
        mass=content.new_zeros(rows),
        share=content.new_zeros(*rows, 0),
        inside=torch.zeros_like(content),
        content=content,
        content_mass=content.new_ones(rows),
    )


def _has_flash(operands: Operands) -> bool:
    """Say whether the CPU flash kernel can do it: it knows masks, one width, and neither caps, sinks nor biases."""
    plain = operands.softcap is None and operands.sink is None and operands.content_bias is None
    same_width = operands.query.shape[3] == operands.value.shape[3]
    return plain and same_width and operands.query.device.type == "cpu"


def _flash(operands: Operands) -> tuple[Tensor, Tensor]:
    query, key, value, mask = operands.query, operands.key, operands.value, operands.content_mask
    queries, keys = query.shape[2], key.shape[2]
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    causal = mask is None and queries > 1
    if causal and keys != queries:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)[None, None]
        causal = False
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=mask, scale=operands.scaling
    )
    if mask is not None:  # the kernel's log-sum-exp of a row that sees nothing is not a number
        blind = (mask <= torch.finfo(mask.dtype).min / 2).all(dim=-1)
        lse = lse.masked_fill(blind, -torch.inf)
        output = output.masked_fill(blind[..., None], 0.0)
    dtype = operands.dtype
    return output.to(dtype), lse.to(dtype)
