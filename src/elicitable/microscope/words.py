"""Read a head's bias as words: which tokens it promotes and suppresses through W_O and the unembedding."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from elicitable.models.adapters import attending
from elicitable.models.attend import probing
from elicitable.models.model import Model
from elicitable.models.restoring import evaluating

Words = tuple[tuple[str, float], ...]


@torch.no_grad()
def says(
    model: Model, layer: int, bias: Tensor, top: int = 8, projection: nn.Module | None = None
) -> tuple[Words, Words]:
    """Return the tokens that a bias promotes and suppresses: unembedding · W_O · bias.

    The final norm lies between the two in the model; it is left out, so logits are comparable within a layer only.

    Args:
        model: the model.
        layer: whose W_O the bias goes through.
        bias: (head, d_value).
        top: tokens on each side.
        projection: W_O, if it is known; it is found by a run otherwise.

    Returns:
        (token, logit) from the most promoted, and from the most suppressed; empty where no W_O was found.
    """
    projection = projection or output_projections(model)[layer]
    unembedding = model.hf.get_output_embeddings()
    if projection is None or unembedding is None:
        return (), ()
    flat = bias.reshape(1, 1, -1).to(model.device, next(projection.parameters()).dtype)
    direction = projection(flat) - projection(torch.zeros_like(flat))  # without W_O's own constant
    logits = nn.functional.linear(direction.to(unembedding.weight.dtype), unembedding.weight)[0, 0].float()
    best, worst = logits.topk(min(top, len(logits))), (-logits).topk(min(top, len(logits)))
    promoted = tuple(
        (token_name(model, i), v) for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )
    suppressed = tuple(
        (token_name(model, i), -v) for i, v in zip(worst.indices.tolist(), worst.values.tolist(), strict=True)
    )
    return promoted, suppressed


def output_projections(model: Model) -> tuple[nn.Module | None, ...]:
    """Find W_O of each layer: the first leaf module that gets the heads' outputs after attention, by one short run."""
    found = [list[nn.Module]() for _ in model.anatomy.attentions]

    def noting(layer: int, attention: nn.Module) -> Any:
        width = model.anatomy.layers[layer].heads * model.anatomy.layers[layer].d_value

        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            attended = any(call[0] is attention for call in calls)
            if attended and args and args[0].shape[-1] == width and getattr(module, "weight", args[0][0, 0]).ndim == 2:
                found[layer].append(module)

        return note

    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with ExitStack() as stack:
        for layer, attention in enumerate(model.anatomy.attentions):
            for leaf in (m for m in attention.modules() if not any(m.children())):
                stack.enter_context(leaf.register_forward_pre_hook(noting(layer, attention)))
        calls = stack.enter_context(probing())
        with evaluating(model.hf), attending(model.hf):
            model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return tuple(modules[0] if modules else None for modules in found)


def token_name(model: Model, token: int) -> str:
    """Return the token as text, or its id where there is no tokenizer."""
    return str(token) if model.tokenizer is None else str(model.tokenizer.decode([token]))
