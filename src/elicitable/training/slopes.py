"""To first order, what it does to the loss to swap one token of a hard context for another.

    L(e_i → E_v) ≈ L + g_i · (E_v − e_i),      g_i = ∂L/∂e_i

at the embeddings e of the context's tokens. It is a guide to which swaps are worth trying, and no more: whoever uses it
scores the swaps exactly.

Source: Ebrahimi, Rao, Lowd, Dou, ACL 2018 (HotFlip, arXiv 1712.06751); Zou et al., 2023 (arXiv 2307.15043).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elicitable.attention.float64 import doubled
from elicitable.methods.soft_prompt import SoftPromptContext
from elicitable.models.inject import room_in
from elicitable.models.rows import rows_of
from elicitable.models.speed.precision import autocast
from elicitable.training.batches import Reading, groups, padded
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.training.loop import prepared

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.values import Item

AT_ONCE = 4096  # rows of the vocabulary that are embedded together


def token_slopes(model: Model, ids: Tensor, items: Sequence[Item], reading: Reading) -> Tensor:
    """Return (token, vocab) g_i · (E_v − e_i) in nats per token of the answers to ``items``, in float64 on the CPU.

    Args:
        model: with whatever stands around the context in use.
        ids: (1, token), the context's.
        items: whose answers' mean loss per token is L.
        reading: how they are read with the context in front of them.
    """
    start = model.embed(ids)[0].detach().to(model.trainable_dtype)
    context = SoftPromptContext(start.clone())
    with prepared(model, context) as refresh:
        with torch.no_grad():
            refresh()  # so that the context takes its positions
        room = room_in(model, reading.max_tokens)
        rows = rows_of(model, items, reading.layout, held=reading.held, limit=room)
        tokens = sum(len(row.answer) for row in rows)
        for part in groups(model, rows, reading.batch):
            batch = padded(model, [rows[place] for place in part])
            refresh()
            with autocast(model):
                logits = answer_logits(model, batch)
            (token_losses(logits, batch.targets).sum() / tokens).backward()
    gradient = context.vectors.grad
    assert gradient is not None
    return _swaps(model, doubled(gradient), doubled(start))


@torch.no_grad()
def _swaps(model: Model, gradient: Tensor, start: Tensor) -> Tensor:
    ids = torch.arange(model.anatomy.vocab, device=model.device)
    parts = [gradient @ doubled(model.embed(some[None])[0]).T for some in ids.split(AT_ONCE)]
    return (torch.cat(parts, dim=1) - (gradient * start).sum(-1, keepdim=True)).cpu()
