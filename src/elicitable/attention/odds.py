"""Read a context's odds off one attention call: how its softmax weight compares with the content's.

    α / (1 − α) = exp(L^prefix − L^content)

Here L is the log-sum-exp of the logits. Of two contexts that stand together, exp(L^prefix) is the sum of both, so odds
add: those of both together are the sum of those that each has alone, **given the layer's input**. (α itself does not
add: it cannot exceed 1.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from elicitable.attention.operands import Operands, prefix_logits
from elicitable.attention.split import attend_content


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
