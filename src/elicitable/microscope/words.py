"""Read a head's bias as words: which tokens it promotes and suppresses through W_O and the unembedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elicitable.models.dispatch import brought_in, runs_on
from elicitable.models.model import Model
from elicitable.models.projections import output_projections

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
        (token, logit) from the most promoted, and from the most suppressed; empty where no W_O was found,
        or something stands between the stream and the unembedding.
    """
    projection = projection or output_projections(model)[layer]
    unembedding = model.hf.get_output_embeddings()
    if projection is None or unembedding is None or model.anatomy.d_embedding != model.anatomy.d_model:
        return (), ()
    flat = bias.reshape(1, 1, -1).to(runs_on(projection), next(projection.parameters()).dtype)
    direction = projection(flat) - projection(torch.zeros_like(flat))  # without W_O's own constant
    with brought_in(unembedding):
        logits = nn.functional.linear(direction.to(unembedding.weight), unembedding.weight)[0, 0].float()
    best, worst = logits.topk(min(top, len(logits))), (-logits).topk(min(top, len(logits)))
    promoted = tuple(
        (token_name(model, i), v) for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )
    suppressed = tuple(
        (token_name(model, i), -v) for i, v in zip(worst.indices.tolist(), worst.values.tolist(), strict=True)
    )
    return promoted, suppressed


def token_name(model: Model, token: int) -> str:
    """Return the token as text, or its id where there is no tokenizer."""
    return str(token) if model.tokenizer is None else str(model.tokenizer.decode([token]))
