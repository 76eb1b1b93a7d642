"""Write attention weights out, a block of queries at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from elicitable.attention.operands import Operands, content_logits, prefix_logits


@dataclass(frozen=True, eq=False)
class Pattern:
    """Hold the weights of one block of queries; a learned sink is the last column of ``content``.

    Attributes:
        prefix: A^pt over the context, (batch, head, query, prefix).
        content: A^pt over the content (and sink), (batch, head, query, key).
    """

    prefix: Tensor
    content: Tensor


def joint_pattern(operands: Operands, rows: slice = slice(None), content: Tensor | None = None) -> Pattern:
    """Attend to context, content and sink in one softmax, as the model does; ``content`` are its logits if known."""
    content = content_logits(operands, rows) if content is None else content
    if operands.prefix_key is None:
        return Pattern(content.new_zeros(*content.shape[:3], 0), torch.softmax(content, dim=-1))
    logits = torch.cat([prefix_logits(operands, rows), content], dim=-1)
    weights = torch.softmax(logits, dim=-1)
    return Pattern(weights[..., : operands.prefix_length], weights[..., operands.prefix_length :])


def content_pattern(operands: Operands, rows: slice = slice(None)) -> Tensor:
    """Attend to the content (and sink) alone, (batch, head, query, key): what attention is without the context."""
    return torch.softmax(content_logits(operands, rows), dim=-1)
